// Which sync covers which write. Every committed write belongs to the generation that was current when it
// entered; a sync closes the current generation, waits for the writes inside it, and makes it durable.
// Thread-safe. At most one advance() at a time.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace cairn::disk {

class GenerationGate {
 public:
  explicit GenerationGate(std::uint64_t first) : current_(first) {}

  // While a Pass lives, its generation is not synced.
  class Pass {
   public:
    explicit Pass(GenerationGate& gate) : gate_(gate) {
      std::lock_guard lock(gate_.mutex_);
      generation_ = gate_.current_;
      ++gate_.inside_[generation_ % 2];
    }
    ~Pass() {
      std::lock_guard lock(gate_.mutex_);
      if (--gate_.inside_[generation_ % 2] == 0) gate_.left_.notify_all();
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    std::uint64_t generation() const { return generation_; }
    // Call when the write is in the index: there is something to sync.
    void committed() {
      std::lock_guard lock(gate_.mutex_);
      gate_.last_committed_ = std::max(gate_.last_committed_, generation_);
    }

   private:
    GenerationGate& gate_;
    std::uint64_t generation_;
  };

  // Starts the next generation and returns the one just closed, with all its writes complete.
  std::uint64_t advance() {
    std::unique_lock lock(mutex_);
    std::uint64_t closed = current_++;
    left_.wait(lock, [&] { return inside_[closed % 2] == 0; });
    return closed;
  }
  // The newest generation that has a committed write: what a sync that starts now must reach.
  std::uint64_t last_committed() const {
    std::lock_guard lock(mutex_);
    return last_committed_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable left_;
  std::uint64_t current_;
  std::uint64_t last_committed_ = 0;
  std::array<int, 2> inside_{};
};

}  // namespace cairn::disk
