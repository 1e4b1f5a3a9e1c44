#include "chunkserver/quota.h"

#include <algorithm>

namespace cairn::chunkserver {

rpc::Task<Result<Quota::Grant>> Quota::take(std::uint64_t units, Deadline deadline) {
  units = std::min(units, units_);
  std::shared_ptr<Waiter> waiter;
  {
    std::lock_guard lock(mutex_);
    if (waiters_.empty() && free_ >= units) {
      free_ -= units;
      co_return Grant(this, units);
    }
    waiter = std::shared_ptr<Waiter>(new Waiter{units, false, rpc::Event(runtime_)});
    waiters_.push_back(waiter);
  }
  auto waited = co_await waiter->event.wait(deadline);
  {
    std::lock_guard lock(mutex_);
    if (waiter->granted) co_return Grant(this, units);  // also when the deadline passed at the same moment
    std::erase(waiters_, waiter);
  }
  give_back(0);  // those behind may fit now
  co_return fail(waited ? Error(Code::kInternal, "quota: woken without a grant") : std::move(waited.error()));
}

void Quota::give_back(std::uint64_t units) {
  std::vector<std::shared_ptr<Waiter>> woken;
  {
    std::lock_guard lock(mutex_);
    free_ += units;
    while (!waiters_.empty() && free_ >= waiters_.front()->units) {
      free_ -= waiters_.front()->units;
      waiters_.front()->granted = true;
      woken.push_back(std::move(waiters_.front()));
      waiters_.pop_front();
    }
  }
  for (const auto& waiter : woken) waiter->event.set();
}

}  // namespace cairn::chunkserver
