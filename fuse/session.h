// One mounted FUSE session: the kernel's device, the threads that read requests from it, and their end.
//
//   Session session(frontend, options);
//   TRYV(session.prepare());         // raw() may be used
//   TRYV(session.mount("/mnt/x"));   // serves from here on
//   ... session.ended() ...          // readable when the kernel let go (umount)
//   session.stop();                  // unmounts if still mounted, ends the threads
//
// Why not libfuse's loop: it can only be stopped by signals to the right thread. Handlers never block, so a
// fixed number of threads serves any number of waiting requests. Owned and called by one thread; handlers run
// on the session's. The Frontend and what it refers to outlive it; every Request must have ended before the
// destructor.
#pragma once

#include <pthread.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "fuse/frontend.h"
#include "fuse/lowlevel.h"
#include "store/base/result.h"

namespace cairn::fuse {

class Session {
 public:
  struct Options {
    std::string source;  // shown as the device
    bool read_only = false;
    bool allow_other = false;
    std::vector<std::string> kernel;
    unsigned threads = 4;
  };
  Session(Frontend& front, Options options);
  ~Session();
  Session(const Session&) = delete;

  // kNotFound: no /dev/fuse. kPermission.
  Result<> prepare();
  // After prepare(). kPermission, kIo with libfuse's words.
  Result<> mount(const std::string& mountpoint);
  int ended() const { return ended_; }  // an eventfd
  fuse_session* raw() { return session_; }
  // Idempotent. A mount that is in use is detached; who still uses it gets ENOTCONN.
  void stop();

 private:
  void serve();
  void join();

  Frontend& front_;
  const Options options_;
  fuse_lowlevel_ops ops_;
  fuse_session* session_ = nullptr;
  std::string mountpoint_;
  int ended_;
  std::atomic<unsigned> serving_{0};
  std::vector<std::thread> threads_;
};

// Detaches what is mounted at `mountpoint`: umount2(2) as root, else fusermount3. kLocked: in use.
enum class Detach { kIfUnused, kLazy, kForce };
Result<> detach(const std::string& mountpoint, Detach how);

}  // namespace cairn::fuse
