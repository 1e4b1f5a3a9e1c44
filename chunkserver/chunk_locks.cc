#include "chunkserver/chunk_locks.h"

namespace cairn::chunkserver {

rpc::Task<Result<ChunkLocks::Hold>> ChunkLocks::acquire(ChunkId chunk, Deadline deadline) {
  std::shared_ptr<Waiter> waiter;
  {
    std::lock_guard lock(mutex_);
    auto [at, free] = held_.try_emplace(chunk);
    if (free) co_return Hold(this, chunk);
    if (at->second.size() >= kWaitersMax)
      co_return fail(Code::kOverloaded, "chunk " + to_string(chunk) + ": too many requests wait for it");
    waiter = std::shared_ptr<Waiter>(new Waiter{false, rpc::Event(runtime_)});
    at->second.push_back(waiter);
  }
  auto waited = co_await waiter->event.wait(deadline);
  std::lock_guard lock(mutex_);
  if (waiter->granted) co_return Hold(this, chunk);  // also when the deadline passed at the same moment
  std::erase(held_[chunk], waiter);
  co_return fail(waited ? Error(Code::kInternal, "chunk lock: woken without it") : std::move(waited.error()));
}

void ChunkLocks::release(const ChunkId& chunk) {
  std::shared_ptr<Waiter> next;
  {
    std::lock_guard lock(mutex_);
    auto at = held_.find(chunk);
    if (at->second.empty()) {
      held_.erase(at);
      return;
    }
    next = std::move(at->second.front());
    at->second.pop_front();
    next->granted = true;
  }
  next->event.set();
}

}  // namespace cairn::chunkserver
