// Tells the kernel to drop what it cached, when another host's lease recall says so.
//
// Contract with the client, which calls from a thread of its own:
//   invalidate_*() returns when the kernel no longer serves the old state, so that the recall may be answered
//   then. It blocks meanwhile, at most `patience`: see below. Never call it from an io thread or inside a
//   FUSE handler: the kernel takes locks that a process holds while it waits for our answer to another
//   request.
//
// Why a limit: to drop a name the kernel needs the lock of its directory. A local process that creates a file
// there holds that lock and waits for us, we wait for the metadata server, and that waits for this very
// recall. After `patience` the kernel is told to distrust *all* cached names instead (FUSE_NOTIFY_INC_EPOCH,
// Linux 6.16; takes no locks), the call returns, and the notification itself ends when the local operation
// has. On older kernels the name may be served until then; its timeout, which never exceeds the lease, bounds
// it.
//
// Two workers, so that one notification that waits does not hold up all others. The queue is bounded: a full
// one makes callers wait within the same patience.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "client/file_system.h"
#include "fuse/lowlevel.h"

namespace cairn::fuse {

// What the kernel is told; the real one or a test's. Each returns 0 or -errno.
class KernelNotifier {
 public:
  virtual ~KernelNotifier() = default;
  virtual int drop_inode(InodeId inode, bool data) = 0;
  virtual int drop_entry(InodeId parent, const std::string& name) = 0;
  virtual int distrust_all_entries() = 0;
  // Drops what is cached of inodes that no process uses; FORGET follows. (FUSE_NOTIFY_PRUNE, Linux 6.18;
  // takes no lock that a request may wait for.) -EINVAL on older kernels, which forget only when they are
  // short of memory.
  virtual int prune(const std::vector<InodeId>& inodes) = 0;
};

// Over a mounted session, which outlives it.
std::unique_ptr<KernelNotifier> session_notifier(fuse_session* session);

class Invalidation final : public InvalidationSink {
 public:
  struct Options {
    std::size_t queue_max = 1024;
    Duration patience = std::chrono::seconds(1);
    unsigned workers = 2;
  };
  Invalidation(KernelNotifier& kernel, Options options);
  ~Invalidation() override;  // detach it from the client first
  Invalidation(const Invalidation&) = delete;

  void invalidate_inode(InodeId inode, bool data) override;
  void invalidate_entry(InodeId parent, std::string_view name) override;
  void release_inodes(const std::vector<InodeId>& inodes) override;
  // Calls that returned before the kernel had answered.
  std::uint64_t given_up() const;

 private:
  struct Job {
    std::function<int()> notify;
    bool entry = false;
    bool done = false;
  };
  void run(Job job);
  void work();

  KernelNotifier& kernel_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, changed_;
  std::deque<std::shared_ptr<Job>> queue_;
  std::uint64_t given_up_ = 0;
  bool prunes_ = true;  // only on the client's thread
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace cairn::fuse
