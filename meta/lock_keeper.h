// LockKeeper: the lock table as the sessions see it. Refuses what can't be decided yet after a restart, and
// tells clients when a lock that they wait for is theirs.
//
// A grant to a waiter is made in the table first and told second (LocksSettled), so that nobody who asks
// later comes in between. If it can't be told, the connection is closed: the client then names what it knows
// to hold, which drops the grant, and asks again. Grants are not journaled.
//
// After a start, sessions from before may hold locks that are not known yet: until each has named its own or
// is fenced, locks and tests get kStarting; unlocking goes on.
//
// Functions that return a Task: any thread; the others: executor thread. Owned by the SessionKeeper; its
// tasks run in the given TaskGroup.
#pragma once

#include <set>
#include <vector>

#include "meta/executor.h"
#include "meta/lock_table.h"
#include "meta/sessions.h"

namespace cairn::meta {

class LockKeeper {
 public:
  LockKeeper(rpc::Runtime& runtime, rpc::TaskGroup& tasks, Executor& executor, SessionTable& sessions)
      : runtime_(runtime), tasks_(tasks), executor_(executor), sessions_(sessions) {}

  // As LockTable's. kSessionEnded, kStarting.
  rpc::Task<Result<LockAnswer>> ask(FileLock wanted, std::uint64_t epoch, std::uint64_t ticket);
  rpc::Task<Result<bool>> cancel(SessionId session, std::uint64_t epoch, std::uint64_t ticket);
  rpc::Task<Result<std::optional<FileLock>>> test(FileLock wanted);

  // --- [executor] ---
  void expect(SessionId session);  // from before the start
  // It has said what it holds: see LockTable::replace.
  Result<> named(SessionId session, std::uint64_t epoch, const std::vector<FileLock>& locks);
  void gone(SessionId session);  // ended, and fenced
  const LockTable& table() const { return table_; }

 private:
  Result<> may_decide(SessionId session) const;
  void tell_settled();
  rpc::Task<> tell(SessionId session, std::vector<SettledWait> waits);

  rpc::Runtime& runtime_;
  rpc::TaskGroup& tasks_;
  Executor& executor_;
  SessionTable& sessions_;
  LockTable table_;               // [executor]
  std::set<SessionId> expected_;  // [executor] whose locks are not known
};

}  // namespace cairn::meta
