// Requests of the kernel that could not be answered at once: who waits, for how long, and what ends the wait.
//
// A Request is owned by the completion of its client coroutine. Exactly one of three replies to the kernel:
//  - the completion: take() gives it the fuse_req_t;
//  - the watcher, on a signal: EINTR, when the process that waits is dying, or asked to stop (below);
//  - the watcher, on time: ETIMEDOUT, after the deadline. Nothing is ever unkillable.
//
// A request answered by the watcher is *abandoned*: its coroutine runs on to its own deadline and the
// completion gets a null fuse_req_t, so that it can give back what nobody will use (an open handle). The
// coroutine is not torn down half way: an interrupted caller must not leave a cache or a lease in a state
// that nobody else expects.
//
// The kernel reports that *some* signal arrived, and that only for synchronous requests (not for O_DIRECT or
// read-ahead), so callers that have waited for a second are looked at too. What is pending is read from
// /proc/<thread>/status. Go programs get SIGURG thousands of times a second, and programs do not expect mkdir
// or rename to give EINTR (their outcome would be unknown), so:
//  - SIGKILL (kill -9, or any signal whose default is death): abandoned, whatever it does. Nobody sees the
//    result.
//  - SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGABRT that are caught: only what changes nothing (Kind::kRead).
//  - Other signals, and callers in a pid namespace that we do not see: the result or the deadline.
// Waits for file locks (Kind::kWait) differ in all of this: they have no deadline, the kernel reports every
// signal of theirs, and each ends the wait: the client is told to stop, and says whether the lock was granted
// just then. Only if it does not say so within `interrupt_max` (or, for a dying caller, at the next look) is
// the request abandoned.
//
// Thread-safe. begin() is for FUSE threads, take() for io threads; the watcher is one thread of
// its own (reading /proc has no place on an io thread). Destroy only when idle: wait_idle().
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "fuse/lowlevel.h"
#include "store/base/clock.h"

namespace cairn::fuse {

enum class Kind : std::uint8_t {
  kRead,    // changes nothing: may be interrupted
  kChange,  // a mutation: interrupted only for a dying caller
  kFlush,   // moves what is dirty, which may take long: as kChange, with ten times the deadline
  kWait,    // for others, without a limit: any signal ends it
};

// State of a waiting thread, as far as its signals go.
enum class Waiter { kWaits, kAskedToStop, kDying };
// From the text of /proc/<thread>/status ("SigPnd", "ShdPnd", "SigBlk"); kWaits if it has none of them.
Waiter waiter_state(std::string_view status);

class Requests;

class Request : public std::enable_shared_from_this<Request> {
 public:
  Request(Requests& owner, fuse_req_t req, Kind kind, std::string_view name, std::function<void()> stop);
  ~Request();  // EIO if nobody replied: the client dropped the task (shutdown)
  Request(const Request&) = delete;
  // The request to reply to, or null if it was abandoned. Once.
  fuse_req_t take();
  std::string_view name() const { return name_; }

 private:
  friend class Requests;
  bool claim() { return !claimed_.exchange(true); }
  fuse_req_t detach();  // after claim(): out of the list, no more interrupts
  void abandon(int error);
  void look(TimePoint now, bool interrupted);

  Requests& owner_;
  const fuse_req_t req_;
  const Kind kind_;
  const std::string_view name_;  // a literal: for the log
  const pid_t thread_;           // of the caller; 0: in a pid namespace that we do not see
  const TimePoint start_;
  const std::function<void()> stop_;  // kWait only
  std::atomic<bool> claimed_{false};
  // The watcher's:
  bool stopped_ = false;
  TimePoint stopped_at_{};
  // Under owner_.mutex_.
  bool listed_ = false;
  std::list<Request*>::iterator place_;
};

class Requests {
 public:
  struct Options {
    Duration deadline = std::chrono::seconds(70);            // the client's own deadline and a margin
    Duration signal_check = std::chrono::milliseconds(100);  // how often an interrupted caller is looked at
    Duration long_wait = std::chrono::seconds(1);            // how often one that waits long is
    Duration interrupt_max = std::chrono::seconds(2);        // for the end of an interrupted wait
  };
  Requests(const Clock& clock, Options options);
  ~Requests();  // CHECKs that it is idle
  Requests(const Requests&) = delete;

  // `name` is a literal.
  std::shared_ptr<Request> begin(fuse_req_t req, Kind kind, std::string_view name);
  // Of Kind::kWait. `stop` is called at most once, by the watcher: it makes the client end the wait soon.
  std::shared_ptr<Request> begin_wait(fuse_req_t req, std::string_view name, std::function<void()> stop);
  // True when every request begun has ended (abandoned ones included) before `limit`.
  bool wait_idle(Duration limit);
  std::size_t waiting() const;

 private:
  friend class Request;
  std::shared_ptr<Request> begin(std::shared_ptr<Request> request);
  static void on_interrupt(fuse_req_t req, void* request);
  void interrupted(std::shared_ptr<Request> request);
  void watch();
  Duration deadline_of(Kind kind) const;
  // Past their deadline, and those whose caller's signals are to be looked at. With mutex_ held.
  struct Due {
    std::vector<std::shared_ptr<Request>> late, look, interrupted;
  };
  Due due(TimePoint now);

  const Clock& clock_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::list<Request*> waiting_;  // oldest first
  std::vector<std::weak_ptr<Request>> interrupted_;
  TimePoint looked_at_all_{};
  std::size_t alive_ = 0;  // abandoned ones too
  bool stopping_ = false;
  bool dozing_ = false;  // the watcher waits without a time limit
  std::thread watcher_;
};

}  // namespace cairn::fuse
