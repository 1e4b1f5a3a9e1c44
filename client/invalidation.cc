#include "client/invalidation.h"

namespace cairn::client {

Invalidations::Invalidations() : thread_([this] { run(); }) {}

Invalidations::~Invalidations() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    sink_ = nullptr;
  }
  changed_.notify_all();
  thread_.join();
}

void Invalidations::set_sink(InvalidationSink* sink) {
  std::unique_lock lock(mutex_);
  sink_ = sink;
  changed_.wait(lock,
                [this] { return !delivering_; });  // the old sink is not called any more when this returns
}

bool Invalidations::has_sink() const {
  std::lock_guard lock(mutex_);
  return sink_ != nullptr;
}

void Invalidations::push(Invalidation invalidation) {
  {
    std::lock_guard lock(mutex_);
    if (sink_ != nullptr && !stop_) {
      queue_.push_back(std::move(invalidation));
      changed_.notify_all();
      return;
    }
  }
  if (invalidation.dropped) invalidation.dropped();
  if (invalidation.done) invalidation.done->set();
}

void Invalidations::release(std::vector<InodeId> unneeded) {
  std::lock_guard lock(mutex_);
  if (sink_ == nullptr || stop_ || delivering_ || !queue_.empty()) return;
  Invalidation release;
  release.unneeded = std::move(unneeded);
  queue_.push_back(std::move(release));
  changed_.notify_all();
}

void Invalidations::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) break;
    Invalidation next = std::move(queue_.front());
    queue_.pop_front();
    InvalidationSink* sink = sink_;
    delivering_ = true;
    lock.unlock();
    if (sink != nullptr && !next.unneeded.empty()) {
      sink->release_inodes(next.unneeded);
    } else if (sink != nullptr) {
      for (const auto& name : next.names) sink->invalidate_entry(next.inode, name);
      if (!next.dropped) next.dropped = [] {};
      sink->invalidate_inode(next.inode, next.data, std::move(next.dropped));
    } else if (next.dropped) {
      next.dropped();
    }
    if (next.done) next.done->set();
    lock.lock();
    delivering_ = false;
    changed_.notify_all();
  }
  for (auto& left : queue_) {
    if (left.dropped) left.dropped();
    if (left.done) left.done->set();
  }
}

}  // namespace cairn::client
