// Tells the kernel to drop what it cached, when another host's lease recall says so.
//
// Contract with the client, which calls from a thread of its own:
//   invalidate_*() returns when the kernel no longer serves the old state, so that the recall may be answered
//   then. It blocks meanwhile, at most `patience`: see below. Never call it from an io thread or inside a
//   FUSE handler: the kernel takes locks that a process holds while it waits for our answer to another
//   request.
//
// Why a limit: to drop a name the kernel needs the lock of its directory, and to drop a page the lock of that
// page. A local process that creates a file there, or writes to that page, holds it and waits for us, we wait
// for the metadata server, and that waits for this very recall. With processes of several hosts at work in
// one directory or file this is the rule, not the exception, so the limit is short and what follows is exact:
//  - Names: after `patience` the kernel is told to distrust *all* cached names (FUSE_NOTIFY_INC_EPOCH, Linux
//    6.16; takes no locks): it asks again for each. Older kernels: after `patience_max` the call returns, and
//    the name may be served until the local operation has ended, or its timeout, which never exceeds the
//    lease.
//  - Data: with them the attributes go, which takes no locks. From then on read(2) asks for attributes before
//    it uses cached pages, and the client does not answer before the pages are dropped. Only pages that are
//    mapped may be served until the local operation has ended. (Attributes are not dropped once more before:
//    each time the kernel ignores answers that are on their way, and with them a new size.)
// The notification itself ends when the local operation has.
//
// Several workers, so that notifications that wait do not hold up others. The queue is bounded: a full one
// makes callers wait within the same patience.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
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
    Duration patience = std::chrono::milliseconds(5);
    Duration patience_max = std::chrono::seconds(1);  // where names can't be distrusted at once
    unsigned workers = 4;
  };
  Invalidation(KernelNotifier& kernel, Options options);
  ~Invalidation() override;  // detach it from the client first
  Invalidation(const Invalidation&) = delete;

  void invalidate_inode(InodeId inode, bool data, std::function<void()> dropped) override;
  void invalidate_entry(InodeId parent, std::string_view name) override;
  void release_inodes(const std::vector<InodeId>& inodes) override;
  // Calls that returned before the kernel had answered.
  std::uint64_t given_up() const;

 private:
  struct Job {
    std::function<int()> notify;
    std::function<void()> ended;  // called when it is done; may be empty
    InodeId parent;               // of a name
    bool done = false;
    bool late = false;  // its caller did not wait for the end
  };
  using JobRef = std::shared_ptr<Job>;
  JobRef add(Job job);
  bool wait(std::unique_lock<std::mutex>& lock, const JobRef& job, Duration patience);
  void work();

  KernelNotifier& kernel_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, changed_;
  std::deque<JobRef> queue_;
  std::unordered_map<InodeId, unsigned> stuck_;  // directories whose lock is waited for: late jobs
  bool can_distrust_ = true;                     // until the kernel said that it can't
  std::uint64_t given_up_ = 0;
  bool prunes_ = true;  // only on the client's thread
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace cairn::fuse
