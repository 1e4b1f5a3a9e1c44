#include "client/budget.h"

#include <algorithm>

namespace cairn::client {

struct Budget::Waiter {
  explicit Waiter(rpc::Runtime& runtime, std::uint64_t units) : event(runtime), units(units) {}
  rpc::Event event;
  std::uint64_t units;
  bool granted = false;  // guarded by the budget's mutex
};

Budget::Budget(rpc::Runtime& runtime, std::uint64_t capacity)
    : runtime_(runtime), capacity_(std::max<std::uint64_t>(capacity, 1)) {}
Budget::~Budget() = default;

bool Budget::try_take(std::uint64_t units) {
  std::lock_guard lock(mutex_);
  if (!waiting_.empty() || used_ + units > capacity_) return false;
  used_ += units;
  return true;
}

void Budget::give(std::uint64_t units) {
  std::lock_guard lock(mutex_);
  used_ -= std::min(units, used_);
  wake_locked();
}

void Budget::force(std::uint64_t units) {
  std::lock_guard lock(mutex_);
  used_ += units;
}

void Budget::wake_locked() {
  while (!waiting_.empty() && used_ + waiting_.front()->units <= capacity_) {
    auto waiter = std::move(waiting_.front());
    waiting_.pop_front();
    used_ += waiter->units;
    waiter->granted = true;
    waiter->event.set();
  }
}

rpc::Task<Result<Budget::Hold>> Budget::take(std::uint64_t units, Deadline deadline) {
  units = std::min(units, capacity_);
  std::shared_ptr<Waiter> waiter;
  {
    std::lock_guard lock(mutex_);
    if (waiting_.empty() && used_ + units <= capacity_) {
      used_ += units;
      co_return Hold(this, units);
    }
    waiter = std::make_shared<Waiter>(runtime_, units);
    waiting_.push_back(waiter);
  }
  auto woken = co_await waiter->event.wait(deadline);
  {
    std::lock_guard lock(mutex_);
    if (waiter->granted) co_return Hold(this, units);
    std::erase(waiting_, waiter);
    wake_locked();
  }
  co_return fail(woken ? Error(Code::kInternal, "woken without a grant") : std::move(woken.error()));
}

std::uint64_t Budget::used() const {
  std::lock_guard lock(mutex_);
  return used_;
}

}  // namespace cairn::client
