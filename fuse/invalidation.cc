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
}

void Invalidation::invalidate_inode(InodeId inode, bool data) {
  run({.notify = [this, inode, data] { return kernel_.drop_inode(inode, data); }});
}

void Invalidation::invalidate_entry(InodeId parent, std::string_view name) {
  run({.notify = [this, parent, name = std::string(name)] { return kernel_.drop_entry(parent, name); },
       .entry = true});
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

void Invalidation::run(Job job) {
  const auto until = std::chrono::steady_clock::now() + options_.patience;
  const bool entry = job.entry;
  auto shared = std::make_shared<Job>(std::move(job));
  std::unique_lock lock(mutex_);
  if (changed_.wait_until(lock, until, [&] { return stopping_ || queue_.size() < options_.queue_max; })) {
    if (stopping_) return;
    queue_.push_back(shared);
    wake_.notify_one();
    if (changed_.wait_until(lock, until, [&] { return stopping_ || shared->done; })) return;
  } else {
    // No place in time: it must be told all the same, so past the bound.
    queue_.push_back(shared);
    wake_.notify_one();
  }
  ++given_up_;
  lock.unlock();
  const int error = entry ? kernel_.distrust_all_entries() : 0;
  log_warn("invalidation_slow", "what={} fallback={}", entry ? "entry" : "inode", entry ? -error : 0);
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
    lock.lock();
    job->done = true;
    changed_.notify_all();
  }
}

}  // namespace cairn::fuse
