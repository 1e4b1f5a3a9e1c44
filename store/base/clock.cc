#include "store/base/clock.h"

#include <ctime>

#include "store/base/result.h"

namespace cairn {
namespace {
std::int64_t read_clock(clockid_t id) {
  timespec t{};
  CHECK(clock_gettime(id, &t) == 0, "the clock can be read");
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}
}  // namespace

TimePoint SystemClock::now() const {
  return {read_clock(CLOCK_BOOTTIME)};
}
std::int64_t SystemClock::wall_ns() const {
  return read_clock(CLOCK_REALTIME);
}

}  // namespace cairn
