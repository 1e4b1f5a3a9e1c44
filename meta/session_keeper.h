// SessionKeeper: the life of sessions. Opens and resumes them, lets them name what they hold after a restart,
// ends those that close, fall silent or do not give back leases, and takes back what an ended one held.
//
// Ending: (1) one batch journals that the session ended and queues its fence; its shared leases are free at
// once. (2) When every chunkserver refuses it, (3) its file locks are free, and in bounded steps its
// exclusive leases end (bytes that may lie past the reported size become `trim`), opens close, unsealed
// objects go, stored replies are forgotten; at last its record. Each step leaves a legal state, and a restart
// goes on where it stopped.
//
// Public members: any thread unless marked. Owned by the server; tasks run in the given TaskGroup.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "meta/executor.h"
#include "meta/lease_arbiter.h"
#include "meta/lock_keeper.h"
#include "meta/replies.h"
#include "meta/sessions.h"

namespace cairn::meta {

struct SessionKeeperConfig {
  std::chrono::milliseconds lease{10'000};
  std::chrono::milliseconds deleted_object_keep{3'600'000};
};

struct OpenedSession {
  SessionId session;
  bool resumed = false;
};

struct Reassertion {
  std::vector<InodeId> exclusive, shared, open;
  bool last = false;
};

class SessionKeeper {
 public:
  struct Parts {
    rpc::Runtime& runtime;
    rpc::TaskGroup& tasks;
    Executor& executor;
    SessionTable& sessions;
    ReplyTable& replies;
    Cluster& cluster;
    SessionKeeperConfig config;
  };
  explicit SessionKeeper(Parts parts)
      : parts_(std::move(parts)), locks_(parts_.runtime, parts_.tasks, parts_.executor, parts_.sessions) {}
  void set_arbiter(std::shared_ptr<LeaseArbiter> arbiter) { arbiter_ = std::move(arbiter); }  // before start

  // Reads sessions, exclusive leases and stored replies; begins the grace. `end_all`: the machine went down,
  // and with it perhaps what was not synced; no session from before goes on. Call before the first request is
  // served.
  rpc::Task<Result<>> start(bool end_all);
  // The loop of expiry and of small background work; ends when its TaskGroup closes.
  rpc::Task<> run();
  // One round of that loop.
  void tick();

  rpc::Task<Result<OpenedSession>> open(std::string name, SessionId resume, std::shared_ptr<rpc::Peer> peer);
  rpc::Task<Result<>> reassert(SessionId session, Reassertion named);
  // Locks of a resuming session; they count with its last reassert().
  rpc::Task<Result<>> name_locks(SessionId session, std::uint64_t epoch, std::vector<FileLock> locks);
  rpc::Task<Result<>> close(SessionId session);
  // Begins to end the session, if it lives.
  void end(SessionId session, std::string reason);
  LockKeeper& locks() { return locks_; }

 private:
  struct Reasserting {  // [executor] what a resuming session has named so far
    std::set<InodeId> named;
    std::set<InodeId> open;
    bool restart = false;             // opens it does not name are closed too
    std::uint64_t granted_below = 0;  // grants of the new connection are not released
    std::uint64_t lock_epoch = 0;
    std::vector<FileLock> locks;
  };
  Result<> load(Txn& txn, bool end_all, std::vector<SessionId>& ending);
  // Does the client still believe in its lease, so that it has to be waited out?
  enum class Believes { kNo, kYes };
  rpc::Task<> end_task(SessionId session, std::string reason, Believes believes,
                       std::shared_ptr<rpc::Event> journaled);
  rpc::Task<Result<std::uint64_t>> journal_end(SessionId session);
  rpc::Task<Result<bool>> take_back_some(SessionId session);
  rpc::Task<Result<bool>> release_unnamed(SessionId session);
  rpc::Task<> collect_orphans();
  rpc::Task<> collect_lingering();
  rpc::Task<> forget_deleted();
  void check_grace();

  Parts parts_;
  LockKeeper locks_;
  std::shared_ptr<LeaseArbiter> arbiter_;
  std::unordered_map<SessionId, Reasserting> reasserting_;  // [executor]
  std::int64_t last_sweep_ns_ = 0;                          // run() only
  std::atomic<bool> collecting_{false};                     // collect_lingering() runs
};

}  // namespace cairn::meta
