#include "store/base/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "store/base/result.h"

namespace cairn {
namespace {

Digest from_xxh(XXH128_hash_t h) {
  return {h.high64, h.low64};
}

}  // namespace

std::uint64_t checksum64(Bytes bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

void block_checksums(Bytes bytes, std::span<BlockChecksum> out) {
  CHECK(out.size() == blocks_in(bytes.size()), "one checksum a block");
  for (BlockChecksum& sum : out) {
    Bytes block = bytes.first(std::min<std::size_t>(kBlockSize, bytes.size()));
    sum = checksum64(block);
    bytes = bytes.subspan(block.size());
  }
}

std::vector<BlockChecksum> block_checksums(Bytes bytes) {
  std::vector<BlockChecksum> sums(blocks_in(bytes.size()));
  block_checksums(bytes, sums);
  return sums;
}

int first_bad_block(Bytes bytes, std::span<const BlockChecksum> expected) {
  if (expected.size() != blocks_in(bytes.size())) return 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    Bytes block = bytes.first(std::min<std::size_t>(kBlockSize, bytes.size()));
    if (checksum64(block) != expected[i]) return static_cast<int>(i);
    bytes = bytes.subspan(block.size());
  }
  return -1;
}

std::string to_string(const Digest& digest) {
  return fmt::format("{:016x}{:016x}", digest.high, digest.low);
}

DigestBuilder::DigestBuilder() : piece_(XXH3_createState()) {
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(piece_));
}
DigestBuilder::~DigestBuilder() {
  if (piece_ != nullptr) XXH3_freeState(static_cast<XXH3_state_t*>(piece_));
}
DigestBuilder::DigestBuilder(DigestBuilder&& other) noexcept
    : piece_(std::exchange(other.piece_, nullptr)),
      in_piece_(other.in_piece_),
      pieces_(std::move(other.pieces_)) {}
DigestBuilder& DigestBuilder::operator=(DigestBuilder&& other) noexcept {
  std::swap(piece_, other.piece_);
  std::swap(in_piece_, other.in_piece_);
  std::swap(pieces_, other.pieces_);
  return *this;
}

void DigestBuilder::add(Bytes bytes) {
  while (!bytes.empty()) {
    Bytes part = bytes.first(std::min<std::size_t>(kDigestPiece - in_piece_, bytes.size()));
    XXH3_128bits_update(static_cast<XXH3_state_t*>(piece_), part.data(), part.size());
    in_piece_ += static_cast<std::uint32_t>(part.size());
    bytes = bytes.subspan(part.size());
    if (in_piece_ == kDigestPiece) close_piece();
  }
}

void DigestBuilder::close_piece() {
  Digest digest = from_xxh(XXH3_128bits_digest(static_cast<XXH3_state_t*>(piece_)));
  ByteWriter out(pieces_);
  out.be64(digest.high);
  out.be64(digest.low);
  in_piece_ = 0;
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(piece_));
}

Digest DigestBuilder::finish() {
  if (in_piece_ > 0 || pieces_.empty()) close_piece();
  return from_xxh(XXH3_128bits(pieces_.data(), pieces_.size()));
}

Digest digest_of(Bytes bytes) {
  DigestBuilder builder;
  builder.add(bytes);
  return builder.finish();
}

Digest chunk_digest(std::uint32_t length, std::span<const BlockChecksum> checksums) {
  std::string text;
  ByteWriter out(text);
  out.be32(length);
  for (BlockChecksum sum : checksums) out.be64(sum);
  return from_xxh(XXH3_128bits(text.data(), text.size()));
}

}  // namespace cairn
