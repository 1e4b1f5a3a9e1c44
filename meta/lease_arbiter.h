// LeaseArbiter: lets an operation run when no other session's lease is in its way, and takes back those that
// are.
//
// An operation runs on the executor as ops::Env + OpGate. If it needs what another session holds, it changes
// nothing: its needs are registered as intents under a ticket, holders are called back, and when they gave
// way the operation runs again from its beginning. Fair: who changes an inode waits for older tickets on it,
// so nobody is overtaken for ever; no deadlock: it waits only for older tickets, and for clients, whose way
// to give back (Report, ReturnLeases, ExtendBound) takes no leases, nor does what the holder of an exclusive
// lease does with that inode (it ends a truncation before it gives back). Readers do not wait for waiting
// writers: they are answered without a grant.
//
// While sessions from before a restart have not said what they hold (grace), nothing that might conflict
// runs.
//
// perform() and what returns Task: any io thread. Members marked [executor]: executor thread.
// Must be owned by a shared_ptr; close() its tasks (given TaskGroup) and stop the executor before destroying
// it.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "meta/executor.h"
#include "meta/journal.h"
#include "meta/leases.h"
#include "meta/ops/env.h"
#include "meta/sessions.h"
#include "store/rpc/connection.h"
#include "store/rpc/task.h"

namespace cairn::meta {

struct LeaseConfig {
  std::size_t per_session_max = 200'000;         // more: answered without a grant
  std::chrono::milliseconds recall_max{60'000};  // a live client that has not given back by then is fenced
  std::chrono::nanoseconds retention{0};         // see ops::Env
};

class OpGate;

struct LeaseItem {
  InodeId inode;
  LeaseKind keep = LeaseKind::kNone;
  LeaseGeneration generation;
};

class LeaseArbiter : public std::enable_shared_from_this<LeaseArbiter> {
 public:
  struct Parts {
    rpc::Runtime& runtime;
    rpc::TaskGroup& tasks;
    Executor& executor;
    SessionTable& sessions;
    Cluster& cluster;
    LeaseConfig config;
    std::function<void(SessionId, std::string reason)> end_session;  // any thread; does not block
  };
  static std::shared_ptr<LeaseArbiter> create(Parts parts) {
    return std::shared_ptr<LeaseArbiter>(new LeaseArbiter(std::move(parts)));
  }

  template <class T>
  using Operation = std::function<Result<T>(ops::Env&, OpGate&)>;
  // Runs `operation` for `session` (none: nobody's leases are its own) once nothing is in its way. kTimeout,
  // kCancelled, kStarting: it was not run. `operation` may be called several times, of which all but the last
  // are dropped.
  template <class T>
  rpc::Task<Result<T>> perform(SessionId session, Operation<T> operation, Deadline deadline,
                               Durability durability = Durability::kAccepted);

  // Leases given back, asked for or not. Journals what needs it.
  rpc::Task<Result<>> give_back(SessionId session, std::vector<LeaseItem> items);
  // After a new connection: whatever is being called back is asked for again. Any thread.
  void resend(SessionId session);
  // Every second or so: recalls that were not sent, or that take too long. Any thread.
  void tick();

  LeaseTable& table() { return table_; }           // [executor]
  void lowered(InodeId inode, SessionId session);  // [executor] after table() says so: who waited goes on
  void drop_shared(SessionId session);             // [executor] it has ended
  void recall(InodeId inode, SessionId session, LeaseKind keep);  // [executor]
  void set_grace(bool on);                                        // [executor]
  // Orphans without an open, and since when; oldest first. [executor]
  struct Lingering {
    InodeId inode;
    TimePoint since;
  };
  std::deque<Lingering>& lingering() { return lingering_; }
  bool any_lingers() const { return any_lingers_.load(std::memory_order_relaxed); }  // any thread
  void linger(InodeId inode);                                                        // [executor]
  void lingered(std::size_t count);      // [executor] so many of the oldest were looked after
  bool grace() const { return grace_; }  // [executor]
  rpc::Task<Result<>> grace_over(Deadline deadline) { return grace_over_.wait(deadline); }

 private:
  friend class OpGate;
  using EventPtr = std::shared_ptr<rpc::Event>;
  struct Intent {
    std::uint64_t ticket = 0;
    SessionId session;
    bool change = false;
    EventPtr done;
  };
  // One request that has to wait; its intents end with it.
  struct Attempt {
    explicit Attempt(std::weak_ptr<LeaseArbiter> arbiter) : arbiter(std::move(arbiter)) {}
    ~Attempt();
    std::weak_ptr<LeaseArbiter> arbiter;
    std::uint64_t ticket = 0;  // 0: nothing registered
    std::vector<InodeId> inodes;
    EventPtr done;
    // Of the last run: what stood in the way.
    std::vector<EventPtr> waits;
    std::string reason;
    Code code = Code::kTimeout;
  };
  struct Recall {
    LeaseKind keep = LeaseKind::kNone;
    TimePoint since;
    bool sent = false;
    EventPtr done;
  };

  explicit LeaseArbiter(Parts parts)
      : runtime_(parts.runtime),
        tasks_(parts.tasks),
        executor_(parts.executor),
        sessions_(parts.sessions),
        cluster_(parts.cluster),
        config_(parts.config),
        end_session_(std::move(parts.end_session)),
        grace_over_(parts.runtime) {
    grace_over_.set();
  }
  EventPtr recall_event(InodeId inode, const LeaseHolder& holder, LeaseKind keep);
  void finish(std::uint64_t ticket, const std::vector<InodeId>& inodes, const EventPtr& done);
  void finish(Attempt& attempt);
  void recall_again(SessionId session, const std::vector<LeaseItem>& answered);
  void send_later(SessionId session);
  void send_outbox(SessionId session);
  static rpc::Task<> send(std::shared_ptr<LeaseArbiter> self, SessionId session,
                          std::vector<LeaseItem> items);
  rpc::Task<Result<>> wait(std::shared_ptr<Attempt> attempt, Deadline deadline);

  rpc::Runtime& runtime_;
  rpc::TaskGroup& tasks_;
  Executor& executor_;
  SessionTable& sessions_;
  Cluster& cluster_;
  const LeaseConfig config_;
  const std::function<void(SessionId, std::string)> end_session_;
  rpc::Event grace_over_;

  // [executor]
  LeaseTable table_;
  std::unordered_map<InodeId, std::vector<Intent>> intents_;
  std::map<std::pair<SessionId, InodeId>, Recall> recalls_;
  std::uint64_t next_ticket_ = 1;
  bool grace_ = false;
  std::deque<Lingering> lingering_;

  std::atomic<bool> any_lingers_{false};
};

// One run of an operation, as it meets the leases. Executor thread only.
class OpGate final : public ops::LeaseGate {
 public:
  OpGate(LeaseArbiter& arbiter, LeaseArbiter::Attempt& attempt, Txn& txn, SessionId session)
      : arbiter_(arbiter), attempt_(attempt), txn_(txn), session_(session) {}
  void reads(InodeId inode) override { needs_.push_back({inode, false}); }
  void changes(InodeId inode) override { needs_.push_back({inode, true}); }
  Result<> settle() override;
  bool held_elsewhere(InodeId inode) override;
  void deleted(InodeId inode) override {
    effects_.push_back({Effect::kDeleted, inode, LeaseKind::kNone, {}});
  }
  void lingers(InodeId inode) override {
    effects_.push_back({Effect::kLingers, inode, LeaseKind::kNone, {}});
  }

  // What the reply tells the client, and the table learns when the operation has succeeded.
  // Limit: not if the session holds very many. Who opens a file can't do without.
  enum class Limit { kYes, kNo };
  void grant_shared(InodeId inode, Limit limit = Limit::kYes);
  void grant_exclusive(InodeId inode, LeaseGeneration generation);
  // `session` holds at most `keep` from now on (its row, if any, is dropped by the operation).
  void lower(InodeId inode, LeaseKind keep) { effects_.push_back({Effect::kLower, inode, keep, {}}); }
  const std::vector<Grant>& grants() const { return grants_; }
  void apply();

 private:
  struct Need {
    InodeId inode;
    bool change;
  };
  struct Effect {
    enum Kind { kSet, kLower, kDeleted, kLingers } kind;
    InodeId inode;
    LeaseKind lease;
    LeaseGeneration generation;
  };
  void register_intents();
  bool holds_exclusively(InodeId inode) const;
  bool writer_waits(InodeId inode) const;

  LeaseArbiter& arbiter_;
  LeaseArbiter::Attempt& attempt_;
  Txn& txn_;
  SessionId session_;
  std::vector<Need> needs_;
  std::vector<Grant> grants_;
  std::vector<Effect> effects_;
  std::size_t new_shared_ = 0;
};

template <class T>
rpc::Task<Result<T>> LeaseArbiter::perform(SessionId session, Operation<T> operation, Deadline deadline,
                                           Durability durability) {
  auto attempt = std::make_shared<Attempt>(weak_from_this());
  for (;;) {
    std::function<Result<T>(Txn&)> once = [self = shared_from_this(), attempt, session,
                                           operation](Txn& txn) -> Result<T> {
      attempt->waits.clear();
      OpGate gate(*self, *attempt, txn, session);
      ops::Env env{txn, self->cluster_, gate, session, self->config_.retention.count()};
      auto result = operation(env, gate);
      if (result && txn.bytes_written() > kEntryBytesMax) {
        result = fail(Code::kInvalidArgument,
                      "the request changes more than one journal entry can hold: split it");
      }
      if (result) gate.apply();
      if (result || attempt->waits.empty()) self->finish(*attempt);
      return result;
    };
    auto result = co_await executor_.run<T>(std::move(once), durability);
    if (result || attempt->waits.empty()) co_return result;
    auto waited = co_await wait(attempt, deadline);
    if (!waited) co_return std::unexpected(std::move(waited.error()));
  }
}

}  // namespace cairn::meta
