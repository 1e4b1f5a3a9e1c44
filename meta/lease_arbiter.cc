#include "meta/lease_arbiter.h"

#include <algorithm>

#include "meta/quota.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {
constexpr std::size_t kRecallsInCall = 4096;
constexpr auto kWaitMax =
    std::chrono::seconds(75);  // nothing waits without a limit, whatever deadline a client sends
}  // namespace

// --- OpGate ---

bool OpGate::held_elsewhere(InodeId inode) {
  for (const LeaseHolder& holder : arbiter_.table_.holders(inode)) {
    if (holder.session != session_ && holder.kind == LeaseKind::kExclusive) return true;
  }
  return false;
}

bool OpGate::holds_exclusively(InodeId inode) const {
  const LeaseHolder* holder = arbiter_.table_.find(inode, session_);
  return holder && holder->kind == LeaseKind::kExclusive;
}

Result<> OpGate::settle() {
  attempt_.waits.clear();
  SessionId in_the_way;
  for (const Need& need : needs_) {
    if (need.change && arbiter_.grace_) {
      attempt_.waits.push_back(
          std::shared_ptr<rpc::Event>(arbiter_.shared_from_this(), &arbiter_.grace_over_));
      attempt_.code = Code::kStarting;
      attempt_.reason = "the metadata server waits for clients from before its restart";
      return fail(attempt_.code, attempt_.reason);
    }
    for (const LeaseHolder& holder : arbiter_.table_.holders(need.inode)) {
      if (holder.session == session_) continue;
      if (!need.change && holder.kind != LeaseKind::kExclusive) continue;
      in_the_way = holder.session;
      attempt_.waits.push_back(
          arbiter_.recall_event(need.inode, holder, need.change ? LeaseKind::kNone : LeaseKind::kShared));
    }
    if (!need.change || arbiter_.intents_.empty()) continue;
    // Who waits for this session's exclusive lease gets it when it is given back, and that may have to wait
    // for this very operation: a recall lets a change of the file that is under way end.
    if (holds_exclusively(need.inode)) continue;
    auto it = arbiter_.intents_.find(need.inode);
    if (it == arbiter_.intents_.end()) continue;
    for (const LeaseArbiter::Intent& intent : it->second) {
      if (intent.session == session_ || (attempt_.ticket != 0 && intent.ticket >= attempt_.ticket)) continue;
      in_the_way = intent.session;
      attempt_.waits.push_back(intent.done);
    }
  }
  if (attempt_.waits.empty()) return {};
  register_intents();
  attempt_.code = Code::kTimeout;
  attempt_.reason = "waiting for session " + to_string(in_the_way) + " (" +
                    arbiter_.sessions_.name(in_the_way) + "), which holds a lease; nothing was changed";
  return fail(attempt_.code, attempt_.reason);
}

void OpGate::register_intents() {
  if (attempt_.ticket == 0) {
    attempt_.ticket = arbiter_.next_ticket_++;
    attempt_.done = std::make_shared<rpc::Event>(arbiter_.runtime_);
  }
  for (const Need& need : needs_) {
    auto& intents = arbiter_.intents_[need.inode];
    auto it = std::find_if(intents.begin(), intents.end(),
                           [&](const auto& i) { return i.ticket == attempt_.ticket; });
    if (it != intents.end()) {
      it->change = it->change || need.change;
      continue;
    }
    intents.push_back({attempt_.ticket, session_, need.change, attempt_.done});
    attempt_.inodes.push_back(need.inode);
  }
}

bool OpGate::writer_waits(InodeId inode) const {
  auto it = arbiter_.intents_.find(inode);
  if (it == arbiter_.intents_.end()) return false;
  return std::any_of(it->second.begin(), it->second.end(),
                     [&](const auto& intent) { return intent.change && intent.session != session_; });
}

void OpGate::grant_shared(InodeId inode, Limit limit) {
  if (!session_.valid()) return;
  if (std::any_of(grants_.begin(), grants_.end(), [&](const Grant& g) { return g.inode == inode; })) return;
  if (const LeaseHolder* held = arbiter_.table_.find(inode, session_)) {
    // While it is being called back a grant might pass the recall on its way.
    if (arbiter_.recalls_.contains({session_, inode})) return;
    // Shared, whatever is held: the report that gives an exclusive one back may be on its way, and this
    // answer would bring it back to life there. Who still has it loses nothing.
    if (held->generation.valid()) {
      grants_.push_back({inode, LeaseKind::kShared, held->generation});
      return;
    }
  } else {
    if (writer_waits(inode) || held_elsewhere(inode)) return;
    if (limit == Limit::kYes &&
        arbiter_.table_.count(session_) + new_shared_ >= arbiter_.config_.per_session_max)
      return;
    ++new_shared_;
  }
  const LeaseGeneration generation(txn_.next_id());
  grants_.push_back({inode, LeaseKind::kShared, generation});
  effects_.push_back({Effect::kSet, inode, LeaseKind::kShared, generation});
}

void OpGate::grant_exclusive(InodeId inode, LeaseGeneration generation) {
  // Held already, and being called back: told again, the client might take it for a lease of after the
  // recall.
  if (holds_exclusively(inode) && arbiter_.recalls_.contains({session_, inode})) return;
  grants_.push_back({inode, LeaseKind::kExclusive, generation});
  effects_.push_back({Effect::kSet, inode, LeaseKind::kExclusive, generation});
}

void OpGate::apply() {
  for (const Effect& effect : effects_) {
    switch (effect.kind) {
      case Effect::kSet:
        arbiter_.table_.set(effect.inode, session_, effect.lease, effect.generation);
        break;
      case Effect::kLower:
        if (arbiter_.table_.lower(effect.inode, session_, effect.lease))
          arbiter_.lowered(effect.inode, session_);
        break;
      case Effect::kLingers:
        arbiter_.linger(effect.inode);
        break;
      case Effect::kDeleted: {
        std::vector<SessionId> sessions;
        for (const LeaseHolder& holder : arbiter_.table_.holders(effect.inode))
          sessions.push_back(holder.session);
        for (SessionId session : sessions) {
          arbiter_.table_.lower(effect.inode, session, LeaseKind::kNone);
          arbiter_.lowered(effect.inode, session);
        }
        break;
      }
    }
  }
}

// --- waiting ---

LeaseArbiter::Attempt::~Attempt() {
  if (ticket == 0) return;
  if (auto self = arbiter.lock()) {
    self->executor_.post([self, ticket = ticket, inodes = std::move(inodes), done = std::move(done)] {
      self->finish(ticket, inodes, done);
    });
  }
}

void LeaseArbiter::finish(std::uint64_t ticket, const std::vector<InodeId>& inodes, const EventPtr& done) {
  for (InodeId inode : inodes) {
    auto it = intents_.find(inode);
    if (it == intents_.end()) continue;
    std::erase_if(it->second, [&](const Intent& intent) { return intent.ticket == ticket; });
    if (it->second.empty()) intents_.erase(it);
  }
  done->set();
}

void LeaseArbiter::finish(Attempt& attempt) {
  if (attempt.ticket == 0) return;
  finish(attempt.ticket, attempt.inodes, attempt.done);
  attempt.ticket = 0;
  attempt.inodes.clear();
}

rpc::Task<Result<>> LeaseArbiter::wait(std::shared_ptr<Attempt> attempt, Deadline deadline) {
  deadline = std::min(deadline, Deadline::after(runtime_.clock(), kWaitMax));
  const std::vector<EventPtr> waits = attempt->waits;  // all of them must come, in any order
  for (const EventPtr& event : waits) {
    auto waited = co_await event->wait(deadline);
    if (waited) continue;
    if (waited.error().code() == Code::kTimeout) co_return fail(attempt->code, attempt->reason);
    co_return std::unexpected(std::move(waited.error()));
  }
  co_return Result<>{};
}

void LeaseArbiter::set_grace(bool on) {
  grace_ = on;
  if (on) {
    grace_over_.reset();
  } else {
    grace_over_.set();
  }
}

// --- recalls ---

LeaseArbiter::EventPtr LeaseArbiter::recall_event(InodeId inode, const LeaseHolder& holder, LeaseKind keep) {
  Recall& recall = recalls_[{holder.session, inode}];
  const bool fresh = recall.done == nullptr;
  if (fresh) {
    recall.keep = keep;
    recall.since = runtime_.clock().now();
    recall.done = std::make_shared<rpc::Event>(runtime_);
  }
  if (fresh ||
      keep <
          recall.keep) {  // also when less was asked for before: that call goes on, and a second one follows
    recall.keep = std::min(keep, recall.keep);
    recall.sent = false;
    send_later(holder.session);
  }
  return recall.done;
}

// The answer was about an earlier grant: meanwhile the session got another one, which it does not know to be
// wanted.
void LeaseArbiter::recall_again(SessionId session, const std::vector<LeaseItem>& answered) {
  bool again = false;
  for (const LeaseItem& item : answered) {
    auto it = recalls_.find({session, item.inode});
    const LeaseHolder* holder = table_.find(item.inode, session);
    if (it == recalls_.end() || !holder || holder->generation <= item.generation) continue;
    it->second.sent = false;
    again = true;
  }
  if (again) send_later(session);
}

void LeaseArbiter::recall(InodeId inode, SessionId session, LeaseKind keep) {
  if (const LeaseHolder* holder = table_.find(inode, session)) recall_event(inode, *holder, keep);
}

void LeaseArbiter::lowered(InodeId inode, SessionId session) {
  auto it = recalls_.find({session, inode});
  if (it == recalls_.end()) return;
  const LeaseHolder* holder = table_.find(inode, session);
  if (holder && holder->kind > it->second.keep) return;
  it->second.done->set();
  recalls_.erase(it);
}

void LeaseArbiter::drop_shared(SessionId session) {
  for (InodeId inode : table_.held_by(session)) {
    const LeaseHolder* holder = table_.find(inode, session);
    if (holder->kind != LeaseKind::kShared) continue;
    table_.lower(inode, session, LeaseKind::kNone);
    lowered(inode, session);
  }
}

void LeaseArbiter::resend(SessionId session) {
  executor_.post([self = shared_from_this(), session] {
    for (auto it = self->recalls_.lower_bound({session, InodeId{}});
         it != self->recalls_.end() && it->first.first == session; ++it) {
      it->second.sent = false;
    }
    self->send_outbox(session);
  });
}

void LeaseArbiter::send_later(SessionId session) {
  // After this batch, so that one call takes all that its operations ask of the session.
  executor_.post([self = shared_from_this(), session] { self->send_outbox(session); });
}

void LeaseArbiter::send_outbox(SessionId session) {
  std::vector<LeaseItem> items;
  const auto flush = [&] {
    if (items.empty()) return;
    tasks_.spawn(runtime_.executor(), send(shared_from_this(), session, std::exchange(items, {})));
  };
  auto it = recalls_.lower_bound({session, InodeId{}});
  for (; it != recalls_.end() && it->first.first == session; ++it) {
    if (it->second.sent) continue;
    const LeaseHolder* holder = table_.find(it->first.second, session);
    if (!holder) continue;
    it->second.sent = true;
    items.push_back({it->first.second, it->second.keep, holder->generation});
    if (items.size() == kRecallsInCall) flush();
  }
  flush();
}

rpc::Task<> LeaseArbiter::send(std::shared_ptr<LeaseArbiter> self, SessionId session,
                               std::vector<LeaseItem> items) {
  std::shared_ptr<rpc::Peer> peer = self->sessions_.peer(session);
  std::optional<Error> failed;
  if (peer && peer->connected()) {
    rpc::OutMessage message;
    auto list = message.body<schema::RecallRequest>().initRecalls(static_cast<unsigned>(items.size()));
    for (unsigned i = 0; i < items.size(); ++i) {
      list[i].setInode(items[i].inode.value());
      list[i].setKeep(static_cast<schema::LeaseKind>(items[i].keep));
      list[i].setGeneration(items[i].generation.value());
    }
    const Deadline deadline = Deadline::after(self->runtime_.clock(), self->config_.recall_max);
    auto reply = co_await peer->call(rpc::method::Recall::kNumber, std::move(message), deadline);
    if (reply) {
      auto given = co_await self->give_back(session, std::move(items));
      if (!given)
        log_debug("recall_not_applied", "session={} error={}", to_string(session), given.error().to_string());
      co_return;
    }
    failed.emplace(std::move(reply.error()));
  } else {
    failed.emplace(Code::kUnavailable, "no connection");
  }
  // Asked again when it has a new connection, or by tick(); a session that never comes back expires.
  log_debug("recall_failed", "session={} count={} error={}", to_string(session), items.size(),
            failed->to_string());
  self->executor_.post([self, session, items = std::move(items)] {
    for (const LeaseItem& item : items) {
      auto it = self->recalls_.find({session, item.inode});
      if (it != self->recalls_.end()) it->second.sent = false;
    }
  });
}

void LeaseArbiter::linger(InodeId inode) {
  lingering_.push_back({inode, runtime_.clock().now()});
  any_lingers_ = true;
}

void LeaseArbiter::lingered(std::size_t count) {
  lingering_.erase(lingering_.begin(), lingering_.begin() + static_cast<std::ptrdiff_t>(count));
  any_lingers_ = !lingering_.empty();
}

void LeaseArbiter::tick() {
  executor_.post([self = shared_from_this()] {
    const TimePoint now = self->runtime_.clock().now();
    SessionId last;
    std::vector<SessionId> late;
    std::vector<SessionId> unsent;
    for (const auto& [key, recall] : self->recalls_) {
      const auto add = [&](std::vector<SessionId>& to) {
        if (to.empty() || to.back() != key.first) to.push_back(key.first);
      };
      if (now - recall.since > self->config_.recall_max) add(late);
      if (!recall.sent && self->sessions_.peer(key.first)) add(unsent);
    }
    for (SessionId session : late) self->end_session_(session, "it did not give back a lease in time");
    for (SessionId session : unsent) self->send_outbox(session);
  });
}

rpc::Task<Result<>> LeaseArbiter::give_back(SessionId session, std::vector<LeaseItem> items) {
  std::function<Result<>(Txn&)> operation = [self = shared_from_this(), session,
                                             items = std::move(items)](Txn& txn) -> Result<> {
    std::vector<const LeaseItem*> lowered;
    for (const LeaseItem& item : items) {
      const LeaseHolder* holder = self->table_.find(item.inode, session);
      if (!holder || holder->kind <= item.keep || holder->generation > item.generation) continue;
      if (holder->kind == LeaseKind::kExclusive) TRYV(release_exclusive(txn, item.inode));
      lowered.push_back(&item);
    }
    for (const LeaseItem* item : lowered) {
      self->table_.lower(item->inode, session, item->keep);
      self->lowered(item->inode, session);
    }
    self->recall_again(session, items);
    return {};
  };
  auto done = co_await executor_.run<void>(std::move(operation));
  co_return done;
}

}  // namespace cairn::meta
