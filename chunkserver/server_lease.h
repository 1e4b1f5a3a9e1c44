// The lease under which this server serves: granted by heartbeat replies, counted from the send time of the
// heartbeat.
//
// It ends 10 % early, so that clocks that run a little apart never make the metadata server believe it over
// while it is not. It also ends when the heartbeat connection broke and nothing was answered for a second: a
// broken connection plus a refused new one is how the metadata server recognises a crashed process before its
// lease is over. Thread-safe.
#pragma once

#include <atomic>

#include "store/base/clock.h"

namespace cairn::chunkserver {

class ServerLease {
 public:
  static constexpr Duration kBrokenMax = std::chrono::seconds(1);

  explicit ServerLease(const Clock& clock) : clock_(clock) {}

  void answered(TimePoint sent, Duration lease) {
    const Duration usable = lease - lease / 10;
    until_ns_.store((sent + usable).ns, std::memory_order_release);
    broken_ns_.store(INT64_MAX, std::memory_order_release);
  }
  void connection_broke() {
    std::int64_t whole = INT64_MAX;
    broken_ns_.compare_exchange_strong(whole, clock_.now().ns, std::memory_order_acq_rel);
  }
  void end() { ended_.store(true, std::memory_order_release); }  // for good: the server stops

  bool valid() const {
    if (ended_.load(std::memory_order_acquire)) return false;
    const std::int64_t now = clock_.now().ns;
    if (now >= until_ns_.load(std::memory_order_acquire)) return false;
    const std::int64_t broken = broken_ns_.load(std::memory_order_acquire);
    return broken == INT64_MAX || now - broken < kBrokenMax.count();
  }

 private:
  const Clock& clock_;
  std::atomic<std::int64_t> until_ns_{INT64_MIN};
  std::atomic<std::int64_t> broken_ns_{INT64_MAX};
  std::atomic<bool> ended_{false};
};

}  // namespace cairn::chunkserver
