#include "store/rpc/live_count.h"

#include <algorithm>

namespace cairn::rpc {

bool LiveCount::wait(Runtime& runtime, Deadline deadline) {
  std::unique_lock lock(mutex_);
  while (count_ > 0 && !runtime.stopped()) {
    const Duration left = deadline.left(runtime.clock());
    if (left <= Duration::zero()) return false;
    // In slices: to see a stopped runtime, and because the clock may not be the system's.
    none_.wait_for(lock, std::min(left, Duration(std::chrono::milliseconds(20))));
  }
  return true;
}

void LiveCount::add(int by) {
  std::lock_guard lock(mutex_);
  count_ += by;
  if (count_ == 0) none_.notify_all();
}

}  // namespace cairn::rpc
