// Invalidations: tells the InvalidationSink (the mount) what the kernel must forget, on a thread of its own.
//
// Why a thread: the kernel may hold a lock that a running request of ours needs until it has answered;
// waiting for it on an io thread would stop everything. Thread-safe. Destroying it delivers nothing more.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "client/file_system.h"

namespace cairn::client {

struct Invalidation {
  InodeId inode;
  bool data = false;
  std::vector<std::string> names;    // entries of this directory
  std::shared_ptr<rpc::Event> done;  // set when delivered; may be null
  std::function<void()> dropped;     // called once, when the kernel has nothing of it any more; may be empty
  std::vector<InodeId> unneeded;     // instead of all that: nobody needs these but the kernel
};

class Invalidations {
 public:
  Invalidations();
  ~Invalidations();
  void set_sink(InvalidationSink* sink);
  bool has_sink() const;
  void push(Invalidation invalidation);
  // Asks the kernel to forget them, unless there is anything else to do: then who asks comes again.
  void release(std::vector<InodeId> unneeded);

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  InvalidationSink* sink_ = nullptr;  // guarded by mutex_, as all below
  std::deque<Invalidation> queue_;
  bool delivering_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cairn::client
