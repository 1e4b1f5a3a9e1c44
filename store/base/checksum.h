// Checksums end to end: made once by the writer, per block, carried with the bytes, stored, verified by the
// reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "store/base/bytes.h"

namespace cairn {

// A chunk's bytes are checked in blocks of this size (the last one may be shorter). 16 KiB: a random 4 KiB
// read verifies 16 KiB (a microsecond or two), and a 4 MiB chunk has 2 KiB of checksums.
constexpr std::uint32_t kBlockSize = 16 * 1024;
constexpr std::uint32_t kDefaultChunkSize = 4 * 1024 * 1024;

using BlockChecksum = std::uint64_t;  // XXH3-64 of the block's bytes, seed 0

std::uint64_t checksum64(Bytes bytes);
constexpr std::uint32_t blocks_in(std::uint64_t length) {
  return static_cast<std::uint32_t>((length + kBlockSize - 1) / kBlockSize);
}
// One checksum a block of `bytes`, which starts at a block boundary.
void block_checksums(Bytes bytes, std::span<BlockChecksum> out);
std::vector<BlockChecksum> block_checksums(Bytes bytes);
// Index of the first block of `bytes` (starting at a block boundary) that does not match, or -1.
int first_bad_block(Bytes bytes, std::span<const BlockChecksum> expected);

struct Digest {  // 128 bits, XXH3; finds damage and equal bytes, is no defence against an attacker
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  auto operator<=>(const Digest&) const = default;
};
std::string to_string(const Digest& digest);  // 32 hex digits

// Digest of an object's bytes: XXH3-128 over the big-endian XXH3-128 of each 1 MiB piece, so that equal bytes
// compare equal whatever the layout. add() takes the bytes in order, in any pieces. Not thread-safe.
constexpr std::uint32_t kDigestPiece = 1024 * 1024;
class DigestBuilder {
 public:
  DigestBuilder();
  ~DigestBuilder();
  DigestBuilder(DigestBuilder&&) noexcept;
  DigestBuilder& operator=(DigestBuilder&&) noexcept;
  void add(Bytes bytes);
  Digest finish();  // call once
 private:
  void close_piece();
  void* piece_ = nullptr;  // XXH3_state_t of the current piece
  std::uint32_t in_piece_ = 0;
  std::string pieces_;  // 16 bytes a closed piece
};
Digest digest_of(Bytes bytes);
// Digest of a chunk's content: XXH3-128 over its length and block checksums. What catch-up compares.
Digest chunk_digest(std::uint32_t length, std::span<const BlockChecksum> checksums);

}  // namespace cairn
