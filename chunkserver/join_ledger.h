// Which chunks of a group a joiner holds as the in-sync members do, in one epoch. It walks the tail's list in
// hash order; behind the cursor a chunk is held unless noted missing, ahead of it only if noted held (a write
// brought it early). Memory: the missing chunks, 24 bytes each and node overhead. Not thread-safe: guarded by
// the group's mutex.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "store/base/ids.h"

namespace cairn::chunkserver {

// The order in which engines list a group's chunks.
struct HashOrder {
  std::uint64_t hash;
  ChunkId chunk;
  explicit HashOrder(const ChunkId& id) : hash(placement_hash(id)), chunk(id) {}
  auto operator<=>(const HashOrder&) const = default;
};

class JoinLedger {
 public:
  enum class State : std::uint8_t { kCopying, kCaughtUp, kFailed };

  bool holds(const ChunkId& chunk) const;
  void held(const ChunkId& chunk);                          // it is now as the in-sync members have it
  void missing(const ChunkId& chunk, std::uint64_t bytes);  // it is not: to be copied
  void walked_to(const ChunkId& chunk) { cursor_ = HashOrder(chunk); }
  void walked_all();
  bool walked() const { return all_; }

  // The next chunk to copy, each given once; a chunk that is missing() again is given again.
  std::optional<ChunkId> next();
  void try_again(const ChunkId& chunk) { queue_.push_back(chunk); }  // the copy failed
  bool complete() const { return all_ && missing_.empty(); }
  std::uint64_t chunks_left() const { return missing_.size(); }
  std::uint64_t bytes_left() const { return bytes_left_; }

  State state = State::kCopying;
  std::uint64_t bytes_copied = 0;
  std::uint64_t chunks_copied = 0;

 private:
  std::optional<HashOrder> cursor_;
  bool all_ = false;
  std::unordered_map<ChunkId, std::uint64_t> missing_;  // with its bytes
  std::unordered_set<ChunkId> early_;                   // held, ahead of the cursor
  std::deque<ChunkId> queue_;
  std::uint64_t bytes_left_ = 0;
};

}  // namespace cairn::chunkserver
