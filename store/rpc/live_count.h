// Counts the coroutines that still run on behalf of an owner, so that it can wait for the last one before
// what they refer to goes away. Thread-safe.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "store/rpc/task.h"

namespace cairn::rpc {

class LiveCount {
 public:
  // Held by one coroutine in its frame: released when the coroutine ends or is destroyed.
  class Token {
   public:
    explicit Token(std::shared_ptr<LiveCount> count) : count_(std::move(count)) { count_->add(1); }
    Token(Token&& other) noexcept = default;
    Token& operator=(Token&&) = delete;
    ~Token() {
      if (count_) count_->add(-1);
    }

   private:
    std::shared_ptr<LiveCount> count_;
  };

  // True when none is left; false when `deadline` passed first. From a thread outside the runtime. A stopped
  // runtime counts as none left: nothing runs any more.
  bool wait(Runtime& runtime, Deadline deadline);

 private:
  void add(int by);

  std::mutex mutex_;
  std::condition_variable none_;
  int count_ = 0;  // guarded by mutex_
};

}  // namespace cairn::rpc
