#include "fuse/invalidation.h"

#include <linux/fuse.h>
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "store/base/log.h"

namespace cairn::fuse {
namespace {

// Linux 6.16; newer than the headers here.
constexpr std::int32_t kNotifyIncEpoch = 8;
// Linux 6.18.
constexpr std::int32_t kNotifyPrune = 9;
struct PruneOut {
  std::uint32_t count;
  std::uint32_t padding;
  std::uint64_t spare;
};

class SessionNotifier final : public KernelNotifier {
 public:
  explicit SessionNotifier(fuse_session* session) : session_(session) {}

  int drop_inode(InodeId inode, bool data) override {
    // A negative offset: attributes only. Length 0: to the end.
    return fuse_lowlevel_notify_inval_inode(session_, inode.value(), data ? 0 : -1, 0);
  }
  int drop_entry(InodeId parent, const std::string& name) override {
    return fuse_lowlevel_notify_inval_entry(session_, parent.value(), name.data(), name.size());
  }
  int distrust_all_entries() override {
    fuse_out_header header{};
    header.len = sizeof header;
    header.error = kNotifyIncEpoch;  // a notification: its code stands here, and `unique` is 0
    const ssize_t written = ::write(fuse_session_fd(session_), &header, sizeof header);
    return written < 0 ? -errno : 0;
  }
  int prune(const std::vector<InodeId>& inodes) override {
    std::vector<std::uint64_t> ids;
    for (InodeId inode : inodes) ids.push_back(inode.value());
    const std::size_t bytes = ids.size() * sizeof(std::uint64_t);
    PruneOut prune{static_cast<std::uint32_t>(ids.size()), 0, 0};
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + sizeof prune + bytes);
    header.error = kNotifyPrune;
    const iovec parts[] = {{&header, sizeof header}, {&prune, sizeof prune}, {ids.data(), bytes}};
    const ssize_t written = ::writev(fuse_session_fd(session_), parts, 3);
    return written < 0 ? -errno : 0;
  }

 private:
  fuse_session* session_;
};

// ENOENT, ENOTDIR: the kernel does not know it. ENOSYS: not mounted yet. ENODEV, ENOTCONN: not any more.
bool is_trouble(int error) {
  switch (-error) {
    case 0:
    case ENOENT:
    case ENOTDIR:
    case ENOSYS:
    case ENODEV:
    case ENOTCONN:
      return false;
    default:
      return true;
  }
}

}  // namespace

std::unique_ptr<KernelNotifier> session_notifier(fuse_session* session) {
  return std::make_unique<SessionNotifier>(session);
}

Invalidation::Invalidation(KernelNotifier& kernel, Options options) : kernel_(kernel), options_(options) {
  for (unsigned i = 0; i < options_.workers; ++i) {
    workers_.emplace_back([this] {
      pthread_setname_np(pthread_self(), "fuse-inval");
      work();
    });
  }
}

Invalidation::~Invalidation() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  changed_.notify_all();
  for (auto& worker : workers_) worker.join();
  for (const JobRef& left : queue_)
    if (left->ended) left->ended();
}

void Invalidation::invalidate_inode(InodeId inode, bool data, std::function<void()> dropped) {
  const auto drop_attributes = [&] {
    const int error = kernel_.drop_inode(inode, false);
    if (is_trouble(error)) log_warn("invalidation_failed", "errno={}", -error);
  };
  if (!data) {
    drop_attributes();
    return dropped();
  }
  const JobRef job =
      add({.notify = [this, inode] { return kernel_.drop_inode(inode, true); }, .ended = std::move(dropped)});
  {
    std::unique_lock lock(mutex_);
    if (wait(lock, job, options_.patience)) return;
    ++given_up_;
  }
  drop_attributes();  // perhaps it has not even begun
}

void Invalidation::invalidate_entry(InodeId parent, std::string_view name) {
  const auto distrust = [this] {
    const int error = kernel_.distrust_all_entries();
    if (error == 0) return true;
    log_warn("invalidation_slow", "what=entry errno={}", -error);
    std::lock_guard lock(mutex_);
    can_distrust_ = false;
    return false;
  };
  bool stuck = false, can_distrust = false;
  {
    std::lock_guard lock(mutex_);
    can_distrust = can_distrust_;
    stuck = can_distrust && stuck_.contains(parent);
  }
  if (stuck && distrust()) return;
  const JobRef job =
      add({.notify = [this, parent, name = std::string(name)] { return kernel_.drop_entry(parent, name); },
           .parent = parent});
  {
    std::unique_lock lock(mutex_);
    if (wait(lock, job, can_distrust ? options_.patience : options_.patience_max)) return;
    ++given_up_;
    job->late = true;
    ++stuck_[parent];
  }
  if (!can_distrust || distrust()) return;
  std::unique_lock lock(mutex_);
  wait(lock, job, options_.patience_max - options_.patience);
}

void Invalidation::release_inodes(const std::vector<InodeId>& inodes) {
  if (!prunes_) return;
  const int error = kernel_.prune(inodes);
  prunes_ = error != -EINVAL;
  if (!prunes_) log_info("kernel_keeps_inodes", "needs=6.18");
}

std::uint64_t Invalidation::given_up() const {
  std::lock_guard lock(mutex_);
  return given_up_;
}

Invalidation::JobRef Invalidation::add(Job job) {
  auto shared = std::make_shared<Job>(std::move(job));
  std::unique_lock lock(mutex_);
  // No place in time: it must be told all the same, so past the bound.
  changed_.wait_for(lock, options_.patience, [&] { return stopping_ || queue_.size() < options_.queue_max; });
  if (stopping_) {
    shared->done = true;
    lock.unlock();
    if (shared->ended) shared->ended();
    return shared;
  }
  queue_.push_back(shared);
  wake_.notify_one();
  return shared;
}

bool Invalidation::wait(std::unique_lock<std::mutex>& lock, const JobRef& job, Duration patience) {
  return changed_.wait_for(lock, patience, [&] { return stopping_ || job->done; });
}

void Invalidation::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    auto job = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    const int error = job->notify();
    if (is_trouble(error)) log_warn("invalidation_failed", "errno={}", -error);
    if (job->ended) job->ended();
    lock.lock();
    job->done = true;
    if (job->late && --stuck_[job->parent] == 0) stuck_.erase(job->parent);
    changed_.notify_all();
  }
}

}  // namespace cairn::fuse
