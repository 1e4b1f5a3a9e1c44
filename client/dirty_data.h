// DirtyData: the bytes of one file that were written and are not stored yet, by chunk.
//
// Each chunk has up to two layers. *Active* takes writes, in place. start_flush() freezes it as *flushing*:
// those bytes are on their way, checksummed and unchangeable, and newer writes go to a new active layer above
// them. Bytes are kept in segments that grow with appends (4 KiB to 1 MiB), so a small file costs a page and
// a large one few allocations; a flush sends the segments as they are, without a copy. Not thread-safe: the
// inode's mutex guards it.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "store/base/bytes.h"
#include "store/rpc/message.h"

namespace cairn::client {

// Bytes of one chunk: disjoint segments by offset.
class ChunkBytes {
 public:
  struct Segment {
    rpc::Buffer buffer;      // its size is the capacity
    std::uint32_t size = 0;  // bytes used
  };
  struct Run {  // bytes without a gap
    std::uint32_t offset = 0;
    rpc::Payload payload;
    std::uint32_t size = 0;
  };

  // Returns the memory newly taken. `appends`: more is likely to follow right behind.
  std::uint64_t write(std::uint32_t offset, Bytes data, std::uint32_t chunk_size, bool appends);
  // Drops what lies at or above `size`. Returns the memory given up.
  std::uint64_t cut(std::uint32_t size);
  std::vector<Run> runs() const;
  const std::map<std::uint32_t, Segment>& segments() const { return segments_; }
  bool empty() const { return segments_.empty(); }
  std::uint64_t memory() const { return memory_; }
  std::uint32_t begin() const { return segments_.empty() ? 0 : segments_.begin()->first; }

 private:
  std::map<std::uint32_t, Segment> segments_;
  std::uint64_t memory_ = 0;
};

class DirtyData {
 public:
  // A part of a range: bytes known here, or (no buffer) a gap to be read from the chunk.
  struct Part {
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    rpc::Buffer bytes;
    bool gap() const { return bytes.size() == 0; }
  };

  void set_chunk_size(std::uint32_t size) { chunk_size_ = size; }
  // Returns the memory newly taken.
  std::uint64_t write(std::uint64_t offset, Bytes data, bool appends);
  // The most that write() can take for so many bytes.
  static std::uint64_t memory_needed(std::uint64_t bytes, bool appends);
  // [from, to) in order. Bytes of active layers are copied (they may change), those being flushed are shared.
  std::vector<Part> parts(std::uint64_t from, std::uint64_t to) const;

  bool empty() const { return active_.empty() && flushing_.empty(); }
  bool has_active() const { return !active_.empty(); }
  bool has_active(std::uint64_t index) const { return active_.contains(index); }
  bool is_flushing(std::uint64_t index) const { return flushing_.contains(index); }
  std::vector<std::uint64_t> active_chunks() const;
  std::vector<std::uint64_t> flushing_chunks() const;
  std::uint64_t memory() const { return memory_; }
  // Offset of the first byte not stored yet; UINT64_MAX if there is none.
  std::uint64_t first_offset() const;

  // Freezes the active layer of a chunk that is not being flushed.
  std::shared_ptr<const ChunkBytes> start_flush(std::uint64_t index);
  // The frozen bytes are stored, or lost. Returns the memory that they held.
  std::uint64_t end_flush(std::uint64_t index);
  // Bytes that were not stored, or lost by the servers since, become active again, below what was written
  // after them.
  // Returns the memory newly taken.
  std::uint64_t restore(std::uint64_t index, const ChunkBytes& lost);
  // Drops active bytes at or above `size` (the file was cut). Returns the memory given up.
  std::uint64_t cut(std::uint64_t size);
  // What cut(size) would drop, to be restored should the file not be cut after all: whole chunks, sharing
  // their bytes. Nothing is written to these chunks until then.
  std::map<std::uint64_t, ChunkBytes> copy_above(std::uint64_t size) const;
  // Drops all active bytes. Returns the memory given up.
  std::uint64_t clear() { return cut(0); }

 private:
  static void overlay(const ChunkBytes& bytes, std::uint64_t base, bool copy, std::vector<Part>& parts);

  std::uint32_t chunk_size_ = 0;
  std::uint64_t memory_ = 0;
  std::map<std::uint64_t, ChunkBytes> active_;                           // by chunk index
  std::map<std::uint64_t, std::shared_ptr<const ChunkBytes>> flushing_;  // by chunk index
};

}  // namespace cairn::client
