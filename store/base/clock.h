// Time enters as an input: code takes a Clock&, so that a simulation can drive it.
// Monotonic time (CLOCK_BOOTTIME, it also runs while the machine sleeps) for leases and deadlines; wall time
// only for what users see. Thread-safe. Waiting is in store/rpc/task.h (it needs an event loop).
#pragma once

#include <chrono>
#include <cstdint>

namespace cairn {

using Duration = std::chrono::nanoseconds;
struct TimePoint {  // nanoseconds of the machine's boot clock; comparable on one machine only
  std::int64_t ns = 0;
  constexpr auto operator<=>(const TimePoint&) const = default;
};
constexpr TimePoint operator+(TimePoint t, Duration d) {
  return {t.ns + d.count()};
}
constexpr TimePoint operator-(TimePoint t, Duration d) {
  return {t.ns - d.count()};
}
constexpr Duration operator-(TimePoint a, TimePoint b) {
  return Duration(a.ns - b.ns);
}

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  virtual std::int64_t wall_ns() const = 0;  // since 1970, UTC
};

class SystemClock final : public Clock {
 public:
  TimePoint now() const override;
  std::int64_t wall_ns() const override;
};

class ManualClock final : public Clock {  // for tests; not thread-safe while advance() runs
 public:
  TimePoint now() const override { return now_; }
  std::int64_t wall_ns() const override { return wall_base_ + now_.ns; }
  void advance(Duration by) { now_ = now_ + by; }

 private:
  TimePoint now_{1'000'000'000};
  std::int64_t wall_base_ = 1'700'000'000'000'000'000;
};

// An absolute time passed down through every await on a peer or a disk, instead of a new timeout at each
// layer.
struct Deadline {
  TimePoint at;
  static constexpr Deadline never() { return {{INT64_MAX}}; }
  static Deadline after(const Clock& clock, Duration d) { return {clock.now() + d}; }
  bool passed(const Clock& clock) const { return clock.now() >= at; }
  Duration left(const Clock& clock) const { return at.ns == INT64_MAX ? Duration::max() : at - clock.now(); }
  constexpr auto operator<=>(const Deadline&) const = default;
};

}  // namespace cairn
