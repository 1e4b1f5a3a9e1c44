// Slows copying when foreground requests suffer. A copy that took t is followed by a pause of f * t; f grows
// while the mean foreground latency is well above the best seen lately, and shrinks when it is not, or when
// nobody asks anything. For groups at their last copy f never exceeds 1: repair then gets at least half of
// the disk. adjust() is called once a second; thread-safe.
#pragma once

#include <algorithm>
#include <atomic>

#include "chunkserver/counters.h"
#include "store/base/clock.h"

namespace cairn::chunkserver {

class Pacer {
 public:
  static constexpr double kFactorMax = 4;
  static constexpr double kFactorMaxUrgent = 1;
  static constexpr Duration kFine = std::chrono::milliseconds(5);  // below this nobody suffers

  void adjust(const LatencyMeter::Mean& foreground) {
    double factor = factor_.load(std::memory_order_relaxed);
    if (foreground.count == 0) {
      factor = 0;
    } else {
      best_ = std::min(best_ * 101 / 100, std::max(foreground.mean, kFine));
      factor = foreground.mean > 3 * best_ ? std::min(factor + 0.5, kFactorMax) : std::max(factor - 0.5, 0.0);
    }
    factor_.store(factor, std::memory_order_relaxed);
  }
  Duration pause_after(Duration took, bool last_copy) const {
    const double factor = factor_.load(std::memory_order_relaxed);
    const double used = last_copy ? std::min(factor, kFactorMaxUrgent) : factor;
    return std::min(Duration(static_cast<std::int64_t>(static_cast<double>(took.count()) * used)),
                    Duration(std::chrono::seconds(1)));
  }

 private:
  std::atomic<double> factor_{0};
  Duration best_ = std::chrono::hours(1);  // only in adjust()
};

}  // namespace cairn::chunkserver
