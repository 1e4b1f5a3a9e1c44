// A counting semaphore for coroutines, first come first served: bounds memory and concurrency.
// Thread-safe; outlives its grants. No lock is held while waiting.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "store/base/result.h"
#include "store/rpc/task.h"

namespace cairn::chunkserver {

class Quota {
 public:
  Quota(rpc::Runtime& runtime, std::uint64_t units) : runtime_(runtime), units_(units), free_(units) {}
  Quota(const Quota&) = delete;

  class Grant {
   public:
    Grant() = default;
    Grant(Quota* quota, std::uint64_t units) : quota_(quota), units_(units) {}
    Grant(Grant&& other) noexcept : quota_(std::exchange(other.quota_, nullptr)), units_(other.units_) {}
    Grant& operator=(Grant&& other) noexcept {
      std::swap(quota_, other.quota_);
      std::swap(units_, other.units_);
      return *this;
    }
    ~Grant() {
      if (quota_ != nullptr) quota_->give_back(units_);
    }

   private:
    Quota* quota_ = nullptr;
    std::uint64_t units_ = 0;
  };

  // More units than there are in all: as many as there are. kTimeout, kCancelled.
  rpc::Task<Result<Grant>> take(std::uint64_t units, Deadline deadline);

 private:
  struct Waiter {
    std::uint64_t units;
    bool granted = false;
    rpc::Event event;
  };
  void give_back(std::uint64_t units);

  rpc::Runtime& runtime_;
  const std::uint64_t units_;
  std::mutex mutex_;
  std::uint64_t free_;                           // guarded by mutex_
  std::deque<std::shared_ptr<Waiter>> waiters_;  // guarded by mutex_
};

}  // namespace cairn::chunkserver
