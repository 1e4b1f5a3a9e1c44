// How many bytes of request payloads one server holds, over all connections. Each connection may always have
// one request under way, so that none starves: the most held is the limit and one payload a connection.
// Thread-safe.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace cairn::rpc {

class PayloadBudget : public std::enable_shared_from_this<PayloadBudget> {
 public:
  explicit PayloadBudget(std::size_t limit) : limit_(limit) {}

  class Hold {
   public:
    Hold() = default;
    Hold(std::shared_ptr<PayloadBudget> budget, std::size_t bytes)
        : budget_(std::move(budget)), bytes_(bytes) {}
    Hold(Hold&& other) noexcept : budget_(std::move(other.budget_)), bytes_(other.bytes_) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        budget_ = std::move(other.budget_);
        bytes_ = other.bytes_;
      }
      return *this;
    }
    ~Hold() { release(); }

   private:
    void release() {
      if (auto budget = std::exchange(budget_, nullptr)) budget->give(bytes_);
    }
    std::shared_ptr<PayloadBudget> budget_;
    std::size_t bytes_ = 0;
  };

  // Never refuses: what was read is here already.
  Hold take(std::size_t bytes) {
    std::lock_guard lock(mutex_);
    used_ += bytes;
    return {shared_from_this(), bytes};
  }
  bool full() {
    std::lock_guard lock(mutex_);
    return used_ > limit_;
  }
  // False: there is room now, and `wake` was not kept. Otherwise it is called once, when there is room again,
  // on any thread; it must not block.
  bool wait_for_room(std::function<void()> wake) {
    std::lock_guard lock(mutex_);
    if (used_ <= limit_) return false;
    waiting_.push_back(std::move(wake));
    return true;
  }

 private:
  void give(std::size_t bytes) {
    std::vector<std::function<void()>> woken;
    {
      std::lock_guard lock(mutex_);
      used_ -= bytes;
      if (used_ > limit_) return;
      woken.swap(waiting_);
    }
    for (auto& wake : woken) wake();
  }

  const std::size_t limit_;
  std::mutex mutex_;
  std::size_t used_ = 0;                        // guarded by mutex_
  std::vector<std::function<void()>> waiting_;  // guarded by mutex_
};

}  // namespace cairn::rpc
