// What the engine knows of one chunk: its present state, the states it can fall back to after a power cut,
// and the overwrites that are logged but not yet in place. And how these stand on disk. README.md has the
// argument.
//
//   record   = format:u8(1) owner_hint:u64 state before_count:u8 state*
//   state    = flags:u8 epoch:u64 counter:u64 session:u64 sequence:u64 digest_high:u64 digest_low:u64
//   length:u32
//              content:u32 redo_sequence:u64 generation:u64 [unit:u64 class:u8]? sum_count:u8 sum:u64*
//              (the extent is there when place is kExtent)
//   flags    = bits 0-1 place, bit 2 absent, bit 3 object, bit 4 settled
//   redo     = format:u8(1) flags:u8(bit 0: zeros) offset:u32 length:u32 generation:u64
//              old_count:u32 old_sum:u64* bytes (nothing if zeros)
#pragma once

#include <string>
#include <vector>

#include "store/base/checksum.h"
#include "store/disk/allocator.h"
#include "store/disk/chunk_engine.h"
#include "store/disk/index_keys.h"

namespace cairn::disk {

constexpr std::uint32_t kChunkBytesMax = 64u << 20;
constexpr std::uint32_t kSumsInRecord =
    4;                                     // up to this many blocks, the checksums stand in the record itself
constexpr std::uint32_t kSumsPerRow = 64;  // else in rows: a small write rewrites at most 512 bytes of them

constexpr std::size_t kFallbacksMax = 8;  // fallback states of a chunk; at most four arise (see fallbacks_of)

enum class Place : std::uint8_t { kNone = 0, kInline = 1, kExtent = 2 };

// Where the bytes of one content are. The extent is always of class_for(length).
struct Content {
  std::uint32_t id = 0;
  Place place = Place::kNone;
  Extent extent;
};

struct State {
  Version version;
  RequestId request;
  Digest digest;
  ChunkState presence = ChunkState::kPresent;
  bool object = false;
  std::uint32_t length = 0;
  Content content;
  std::uint64_t redo_sequence = 0;  // the last redo that belongs to this state
  std::uint64_t generation = 0;     // of the write that made it: synced when that generation is
  // True: all it needs is in the index or was synced before, so it is good as soon as its record is there.
  // False: it has bytes in an extent that are only safe once `generation` is synced.
  bool settled = true;
  // In the record: all checksums when they are few, else, for a fallback state, that of its last block only.
  std::vector<BlockChecksum> sums;

  std::uint32_t blocks() const { return blocks_in(length); }
};

// A logged overwrite of part of an extent, pending until a checkpoint wrote and synced it in place.
struct Redo {
  std::uint64_t sequence = 0;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  std::uint64_t generation = 0;
  bool zeros = false;
  bool applied = false;                 // in memory only: written in place, not yet synced there
  std::vector<BlockChecksum> old_sums;  // of the blocks it touches, as before it: undone when falling back
  std::string bytes;                    // `length` of them, none if zeros

  std::uint32_t end() const { return offset + length; }
  std::uint32_t first_block() const { return offset / kBlockSize; }
};

struct Chunk {
  ChunkKey key;
  bool exists = false;
  InodeId owner_hint;
  State now;                        // its `sums` member is unused: see `sums`
  std::vector<BlockChecksum> sums;  // all of `now`
  std::vector<State> before;        // fallback states, newest first; the last one is settled
  std::vector<Redo> redo;           // of now.content, in sequence order
  std::uint64_t redo_bytes = 0;     // memory they take
  std::vector<std::pair<std::uint32_t, std::uint64_t>> old_redo;  // (content, sequence) of earlier contents
  // Bytes of the extent below `hold` may still be needed by a state that a power cut would bring back, even
  // past `now.length` (a cut that is not synced yet). In force until hold_generation is synced.
  std::uint32_t hold = 0;
  std::uint64_t hold_generation = 0;

  bool present() const { return exists && now.presence == ChunkState::kPresent; }
  std::uint32_t length() const { return present() ? now.length : 0; }
};

std::string encode_record(const Chunk& chunk);
// Fills everything except `key`, `sums` (unless they are in the record), redo and hold.
Result<> decode_record(std::string_view text, Chunk& to);

std::string encode_redo(const Redo& redo);
Result<Redo> decode_redo(std::string_view text);

// What the record of a fallback state keeps of its checksums.
std::vector<BlockChecksum> sums_to_keep(const State& state, const std::vector<BlockChecksum>& all);

std::string encode_sums(std::span<const BlockChecksum> sums);
bool decode_sums(std::string_view text, std::span<BlockChecksum> to);

// Lays the chunk's pending overwrites over bytes read from the extent at `offset`.
void overlay_redo(const std::vector<Redo>& redo, std::uint32_t offset, MutableBytes bytes);

ChunkInfo info_of(const Chunk& chunk);

}  // namespace cairn::disk
