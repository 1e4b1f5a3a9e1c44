// A budget of units (bytes of memory, transfers in flight) that coroutines wait for, first come first served.
// Why: every buffer has a bound; who finds it used up waits instead of growing the process.
// With a capacity of 1 it is a lock that may be held over co_await. Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "store/rpc/task.h"

namespace cairn::client {

class Budget {
 public:
  // What was taken; given back when it goes.
  class Hold {
   public:
    Hold() = default;
    Hold(Budget* budget, std::uint64_t units) : budget_(budget), units_(units) {}
    Hold(Hold&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), units_(std::exchange(other.units_, 0)) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        budget_ = std::exchange(other.budget_, nullptr);
        units_ = std::exchange(other.units_, 0);
      }
      return *this;
    }
    ~Hold() { release(); }
    void release() {
      if (budget_ != nullptr) std::exchange(budget_, nullptr)->give(std::exchange(units_, 0));
    }
    std::uint64_t units() const { return units_; }
    // `units` of what is held stay taken; somebody else gives them back.
    void hand_over(std::uint64_t units) { units_ -= units; }

   private:
    Budget* budget_ = nullptr;
    std::uint64_t units_ = 0;
  };

  Budget(rpc::Runtime& runtime, std::uint64_t capacity);
  ~Budget();
  Budget(const Budget&) = delete;

  bool try_take(std::uint64_t units);
  void give(std::uint64_t units);
  // Takes without waiting, also beyond the capacity.
  void force(std::uint64_t units);
  // Waits for its turn. More than the capacity is cut to it. kTimeout, kCancelled: nothing was taken.
  rpc::Task<Result<Hold>> take(std::uint64_t units, Deadline deadline);
  std::uint64_t used() const;
  std::uint64_t capacity() const { return capacity_; }

 private:
  struct Waiter;
  void wake_locked();

  rpc::Runtime& runtime_;
  const std::uint64_t capacity_;
  mutable std::mutex mutex_;
  std::uint64_t used_ = 0;
  std::list<std::shared_ptr<Waiter>> waiting_;  // guarded by mutex_; a deque would cost 600 bytes empty
};

}  // namespace cairn::client
