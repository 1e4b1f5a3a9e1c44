// One lock a chunk for coroutines, first come first served: whoever changes a chunk's content (a write from
// its version to its acknowledgement, a copy, a repair) holds it, so that each sees the chunk between two
// versions. Thread-safe; outlives its holds. No thread ever blocks on it.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "store/base/ids.h"
#include "store/base/result.h"
#include "store/rpc/task.h"

namespace cairn::chunkserver {

class ChunkLocks {
 public:
  // More waiters than this on one chunk: kOverloaded.
  static constexpr std::size_t kWaitersMax = 256;

  explicit ChunkLocks(rpc::Runtime& runtime) : runtime_(runtime) {}
  ChunkLocks(const ChunkLocks&) = delete;

  class Hold {
   public:
    Hold() = default;
    Hold(ChunkLocks* locks, ChunkId chunk) : locks_(locks), chunk_(chunk) {}
    Hold(Hold&& other) noexcept : locks_(std::exchange(other.locks_, nullptr)), chunk_(other.chunk_) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(locks_, other.locks_);
      std::swap(chunk_, other.chunk_);
      return *this;
    }
    ~Hold() {
      if (locks_ != nullptr) locks_->release(chunk_);
    }

   private:
    ChunkLocks* locks_ = nullptr;
    ChunkId chunk_;
  };

  // kTimeout, kCancelled, kOverloaded.
  rpc::Task<Result<Hold>> acquire(ChunkId chunk, Deadline deadline);

 private:
  struct Waiter {
    bool granted = false;
    rpc::Event event;
  };
  void release(const ChunkId& chunk);

  rpc::Runtime& runtime_;
  std::mutex mutex_;
  std::unordered_map<ChunkId, std::deque<std::shared_ptr<Waiter>>> held_;  // guarded by mutex_
};

}  // namespace cairn::chunkserver
