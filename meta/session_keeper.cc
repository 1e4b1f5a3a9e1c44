#include "meta/session_keeper.h"

#include <algorithm>

#include "meta/keys.h"
#include "meta/ops/objects.h"
#include "meta/ops/operations.h"
#include "meta/quota.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {

constexpr std::size_t kStepBytes =
    kEntryBytesMax / 16;                    // changed in one transaction, and what one record has
constexpr std::size_t kReleaseStep = 1000;  // leases released in one transaction
constexpr auto kFenceTry = std::chrono::seconds(30);
constexpr auto kRetry = std::chrono::milliseconds(200);
constexpr std::int64_t kSweepNs = 60'000'000'000;
constexpr std::size_t kLingeringStep = 256;
constexpr std::size_t kNamedLocksMax = 400'000;  // of one session; more than the lock table lets it have
// Between a reader's lookup and its open, and more.
constexpr auto kLingerFor = std::chrono::seconds(2);

Result<std::optional<SessionRecord>> find_session(Txn& txn, SessionId id) {
  TRY(auto bytes, txn.get(keys::session(id)));
  if (!bytes) return std::nullopt;
  return SessionRecord::decode(*bytes);
}

// Deletes an inode without names, unless it is open or gone.
Result<> collect_orphan(ops::Env& env, InodeId inode) {
  return ops::close_opens(env, inode, 0);
}

}  // namespace

// --- start ---

Result<> SessionKeeper::load(Txn& txn, bool end_all, std::vector<SessionId>& ending) {
  std::optional<Error> bad;
  const auto keep_error = [&](const Error& error) {
    bad = error;
    return false;
  };
  TRYV(txn.scan(keys::prefix(KeyPrefix::kSession), {}, [&](std::string_view key, std::string_view value) {
    const SessionId id(keys::part(key, 0));
    auto record = SessionRecord::decode(value);
    if (!record) return keep_error(record.error().with("session " + to_string(id)));
    const bool ended = end_all || record->state == SessionRecord::State::kEnded;
    parts_.sessions.add(id, record->name, SessionTable::State::kRestored, nullptr);
    locks_.expect(id);
    if (ended) {
      parts_.sessions.begin_end(id);
      ending.push_back(id);
    }
    return true;
  }));
  if (bad) return fail(*bad);
  TRYV(txn.scan(keys::prefix(KeyPrefix::kExclusive), {}, [&](std::string_view key, std::string_view value) {
    auto record = ExclusiveRecord::decode(value);
    if (!record) return keep_error(record.error());
    arbiter_->table().set(InodeId(keys::part(key, 0)), record->session, LeaseKind::kExclusive,
                          record->generation);
    return true;
  }));
  if (bad) return fail(*bad);
  TRYV(txn.scan(keys::prefix(KeyPrefix::kReply), {}, [&](std::string_view key, std::string_view) {
    parts_.replies.load(SessionId(keys::part(key, 0)), keys::part(key, 1));
    return true;
  }));
  arbiter_->set_grace(parts_.sessions.any_restored());
  return {};
}

rpc::Task<Result<>> SessionKeeper::start(bool end_all) {
  auto ending = std::make_shared<std::vector<SessionId>>();
  std::function<Result<>(Txn&)> operation = [this, end_all, ending](Txn& txn) {
    return load(txn, end_all, *ending);
  };
  auto loaded = co_await parts_.executor.run<void>(std::move(operation));
  if (!loaded) co_return std::unexpected(std::move(loaded.error()));
  log_info("sessions_loaded", "restored={} ending={}", parts_.sessions.alive(), ending->size());
  for (SessionId session : *ending) {
    parts_.tasks.spawn(parts_.runtime.executor(),
                       end_task(session, "left from before the start", Believes::kYes, nullptr));
  }
  parts_.tasks.spawn(parts_.runtime.executor(), collect_orphans());
  co_return Result<>{};
}

void SessionKeeper::check_grace() {
  if (!arbiter_->grace() || parts_.sessions.any_restored()) return;
  arbiter_->set_grace(false);
  log_info("grace_over", "sessions={}", parts_.sessions.alive());
}

rpc::Task<> SessionKeeper::collect_orphans() {
  auto over = co_await arbiter_->grace_over(Deadline::never());
  if (!over) co_return;
  auto from = std::make_shared<std::string>(keys::prefix(KeyPrefix::kOrphan));
  std::size_t collected = 0;
  for (;;) {
    LeaseArbiter::Operation<std::size_t> step = [from](ops::Env& env, OpGate&) -> Result<std::size_t> {
      std::vector<InodeId> inodes;
      TRYV(env.txn.scan(keys::prefix(KeyPrefix::kOrphan), *from, [&](std::string_view key, std::string_view) {
        inodes.emplace_back(keys::part(key, 0));
        return inodes.size() < 256;
      }));
      for (InodeId inode : inodes) TRYV(collect_orphan(env, inode));
      if (!inodes.empty()) *from = keys::orphan(InodeId(inodes.back().value() + 1));
      return inodes.size();
    };
    auto seen = co_await arbiter_->perform<std::size_t>(SessionId{}, std::move(step), Deadline::never());
    if (!seen) {
      if (seen.error().code() == Code::kCancelled) co_return;
      log_error("orphans_not_collected", "error={}", log_quote(seen.error().to_string()));
      co_return;
    }
    collected += *seen;
    if (*seen == 0) break;
  }
  if (collected > 0) log_info("orphans_seen", "count={}", collected);
}

// --- open, reassert, close ---

rpc::Task<Result<OpenedSession>> SessionKeeper::open(std::string name, SessionId resume,
                                                     std::shared_ptr<rpc::Peer> peer) {
  if (resume.valid()) {
    auto state = parts_.sessions.attach(resume, peer);
    if (state) {
      std::function<Result<>(Txn&)> begin = [this, resume, state = *state](Txn& txn) -> Result<> {
        const bool restart = state == SessionTable::State::kRestored;
        reasserting_[resume] = Reasserting{{}, {}, restart, txn.next_id(), 0, {}};
        return {};
      };
      auto begun = co_await parts_.executor.run<void>(std::move(begin));
      if (!begun) co_return std::unexpected(std::move(begun.error()));
      arbiter_->resend(resume);
      log_info("session_resumed", "session={} name={} peer={}", to_string(resume), log_quote(name),
               peer->address());
      co_return OpenedSession{resume, true};
    }
  }
  std::function<Result<SessionId>(Txn&)> operation = [this, name, peer](Txn& txn) -> Result<SessionId> {
    const SessionId id(txn.next_id());
    txn.put(keys::session(id), SessionRecord{SessionRecord::State::kAlive, 0, txn.wall_ns(), name}.encode());
    parts_.sessions.add(id, name, SessionTable::State::kAlive, peer);
    return id;
  };
  auto id = co_await parts_.executor.run<SessionId>(std::move(operation));
  if (!id) co_return std::unexpected(std::move(id.error()));
  log_info("session_opened", "session={} name={} peer={}", to_string(*id), log_quote(name), peer->address());
  co_return OpenedSession{*id, false};
}

rpc::Task<Result<>> SessionKeeper::name_locks(SessionId session, std::uint64_t epoch,
                                              std::vector<FileLock> locks) {
  std::function<Result<>(Txn&)> operation = [this, session, epoch,
                                             locks = std::move(locks)](Txn&) -> Result<> {
    auto it = reasserting_.find(session);
    if (it == reasserting_.end()) return {};  // not after a resume: nothing to compare with
    if (it->second.locks.size() + locks.size() > kNamedLocksMax)
      return fail(Code::kNoSpace, "this client has too many file locks");
    it->second.lock_epoch = epoch;
    it->second.locks.insert(it->second.locks.end(), locks.begin(), locks.end());
    return {};
  };
  auto noted = co_await parts_.executor.run<void>(std::move(operation));
  co_return noted;
}

rpc::Task<Result<>> SessionKeeper::reassert(SessionId session, Reassertion named) {
  const bool last = named.last;
  std::function<Result<>(Txn&)> operation = [this, session, named = std::move(named)](Txn& txn) -> Result<> {
    auto it = reasserting_.find(session);
    if (it == reasserting_.end()) return {};  // not after a resume: nothing to compare with
    Reasserting& state = it->second;
    state.named.insert(named.exclusive.begin(), named.exclusive.end());
    state.named.insert(named.shared.begin(), named.shared.end());
    state.open.insert(named.open.begin(), named.open.end());
    for (InodeId inode : named.shared) {
      if (arbiter_->table().find(inode, session)) continue;
      const auto holders = arbiter_->table().holders(inode);
      const bool elsewhere = std::any_of(holders.begin(), holders.end(), [](const LeaseHolder& h) {
        return h.kind == LeaseKind::kExclusive;
      });
      if (elsewhere) {
        return fail(Code::kLeaseLost,
                    "inode " + to_string(inode) + " is held exclusively by another session");
      }
      // Generation 0: whatever generation the client remembers from before is not above it.
      arbiter_->table().set(inode, session, LeaseKind::kShared, LeaseGeneration{});
    }
    for (InodeId inode : named.open) {
      TRY(auto known, txn.get(keys::open(session, inode)));
      TRY(auto exists, txn.get(keys::inode(inode)));
      if (!known && exists) TRYV(add_open(txn, session, inode));
    }
    if (!named.last) return {};
    auto locked = locks_.named(session, state.lock_epoch, state.locks);
    if (locked) return {};
    // It was given away while the session lived: that can't be, and the client must not believe in it.
    log_error("lock_lost", "session={} error={}", to_string(session), log_quote(locked.error().to_string()));
    end(session, "it names a lock that another session holds");
    return fail(Code::kSessionEnded, locked.error().message());
  };
  auto noted = co_await parts_.executor.run<void>(std::move(operation));
  if (!noted || !last) co_return noted;
  for (;;) {
    auto more = co_await release_unnamed(session);
    if (!more) co_return std::unexpected(std::move(more.error()));
    if (!*more) break;
  }
  parts_.executor.post([this, session] {
    reasserting_.erase(session);
    parts_.sessions.reasserted(session);
    check_grace();
  });
  auto settled =
      co_await parts_.executor.run<void>(std::function<Result<>(Txn&)>([](Txn&) -> Result<> { return {}; }));
  co_return settled;
}

rpc::Task<Result<bool>> SessionKeeper::release_unnamed(SessionId session) {
  LeaseArbiter::Operation<bool> step = [this, session](ops::Env& env, OpGate& gate) -> Result<bool> {
    auto it = reasserting_.find(session);
    if (it == reasserting_.end()) return false;
    const Reasserting& state = it->second;
    std::size_t steps = 0;
    for (InodeId inode : arbiter_->table().held_by(session)) {
      const LeaseHolder* holder = arbiter_->table().find(inode, session);
      if (state.named.contains(inode) || holder->generation.value() >= state.granted_below) continue;
      if (++steps > kReleaseStep || env.txn.bytes_written() > kStepBytes) return true;
      if (holder->kind == LeaseKind::kExclusive) TRYV(release_exclusive(env.txn, inode));
      gate.lower(inode, LeaseKind::kNone);
    }
    if (!state.restart) return false;
    std::vector<InodeId> closed;
    TRYV(env.txn.scan(keys::opens_of(session), {}, [&](std::string_view key, std::string_view) {
      const InodeId inode(keys::part(key, 1));
      if (!state.open.contains(inode)) closed.push_back(inode);
      return closed.size() < kReleaseStep;
    }));
    for (InodeId inode : closed) {
      if (env.txn.bytes_written() > kStepBytes) return true;
      TRYV(ops::close_opens(env, inode, UINT64_MAX));
    }
    return closed.size() == kReleaseStep;
  };
  auto more = co_await arbiter_->perform<bool>(session, std::move(step), Deadline::never());
  co_return more;
}

rpc::Task<Result<>> SessionKeeper::close(SessionId session) {
  if (!parts_.sessions.begin_end(session)) co_return Result<>{};
  auto journaled = std::make_shared<rpc::Event>(parts_.runtime);
  parts_.tasks.spawn(parts_.runtime.executor(),
                     end_task(session, "closed by the client", Believes::kNo, journaled));
  auto done = co_await journaled->wait(Deadline::after(parts_.runtime.clock(), std::chrono::seconds(30)));
  co_return done;
}

void SessionKeeper::end(SessionId session, std::string reason) {
  if (!parts_.sessions.begin_end(session)) return;
  log_warn("session_fenced", "session={} name={} reason={}", to_string(session),
           log_quote(parts_.sessions.name(session)), log_quote(reason));
  parts_.tasks.spawn(parts_.runtime.executor(),
                     end_task(session, std::move(reason), Believes::kYes, nullptr));
}

// --- ending ---

rpc::Task<Result<std::uint64_t>> SessionKeeper::journal_end(SessionId session) {
  std::function<Result<std::uint64_t>(Txn&)> operation = [this, session](Txn& txn) -> Result<std::uint64_t> {
    TRY(auto record, find_session(txn, session));
    if (!record) return 0;
    if (record->state == SessionRecord::State::kAlive) {
      record->state = SessionRecord::State::kEnded;
      record->fence = parts_.cluster.queue_fence(txn, session);
      txn.put(keys::session(session), record->encode());
    }
    parts_.replies.drop(session);
    reasserting_.erase(session);
    check_grace();
    return record->fence;
  };
  auto fence = co_await parts_.executor.run<std::uint64_t>(std::move(operation));
  co_return fence;
}

rpc::Task<> SessionKeeper::end_task(SessionId session, std::string reason, Believes believes,
                                    std::shared_ptr<rpc::Event> journaled) {
  const TimePoint over = parts_.sessions.lease_over(session);
  std::uint64_t fence = 0;
  for (;;) {
    auto done = co_await journal_end(session);
    if (done) {
      fence = *done;
      break;
    }
    if (done.error().code() != Code::kOverloaded) co_return;  // stopping: the next start goes on
    auto slept = co_await rpc::sleep_for(parts_.runtime, kRetry);
    if (!slept) co_return;
  }
  // The fence stops its writes. What it cached it serves until its lease ends or it hears of this.
  if (believes == Believes::kYes) {
    auto slept = co_await rpc::sleep_until(parts_.runtime, over);
    if (!slept) co_return;
  }
  parts_.executor.post([this, session] { arbiter_->drop_shared(session); });
  if (journaled) journaled->set();
  while (fence != 0) {
    const Deadline deadline = Deadline::after(parts_.runtime.clock(), kFenceTry);
    auto confirmed = co_await parts_.cluster.fence_confirmed(fence, deadline);
    if (confirmed) break;
    if (confirmed.error().code() == Code::kCancelled) co_return;
    log_warn("fence_not_confirmed", "session={} fence={} error={}", to_string(session), fence,
             log_quote(confirmed.error().to_string()));
    auto slept = co_await rpc::sleep_for(parts_.runtime, kRetry);
    if (!slept) co_return;
  }
  parts_.executor.post([this, session] { locks_.gone(session); });
  for (;;) {
    auto more = co_await take_back_some(session);
    if (more && !*more) break;
    if (more) continue;
    if (more.error().code() != Code::kOverloaded) {
      if (more.error().code() != Code::kCancelled) {
        log_error("session_not_cleaned", "session={} error={}", to_string(session),
                  log_quote(more.error().to_string()));
      }
      co_return;
    }
    auto slept = co_await rpc::sleep_for(parts_.runtime, kRetry);
    if (!slept) co_return;
  }
  log_info("session_ended", "session={} reason={}", to_string(session), log_quote(reason));
}

namespace {

// The lease of a session that ended without reporting: whatever it wrote past the reported size must go
// before the file grows again.
Result<> end_exclusive(ops::Env& env, InodeId id) {
  TRY(auto inode, find_inode(env.txn, id));
  if (inode && inode->is_regular()) {
    const std::uint64_t to = std::max(inode->trim.to, inode->bound * inode->chunk_size());
    if (to > inode->size) {
      inode->trim = {inode->size, to};
      store_inode(env.txn, id, *inode);
    }
  }
  return release_exclusive(env.txn, id);
}

Result<std::vector<std::uint64_t>> second_parts(Txn& txn, const std::string& prefix, std::size_t limit) {
  std::vector<std::uint64_t> out;
  TRYV(txn.scan(prefix, {}, [&](std::string_view key, std::string_view) {
    out.push_back(keys::part(key, 1));
    return out.size() < limit;
  }));
  return out;
}

}  // namespace

rpc::Task<Result<bool>> SessionKeeper::take_back_some(SessionId session) {
  LeaseArbiter::Operation<bool> step = [this, session](ops::Env& env, OpGate& gate) -> Result<bool> {
    TRY(auto exclusives, second_parts(env.txn, keys::exclusives_of(session), 128));
    for (std::uint64_t inode : exclusives) {
      if (env.txn.bytes_written() > kStepBytes) break;
      TRYV(end_exclusive(env, InodeId(inode)));
      gate.lower(InodeId(inode), LeaseKind::kNone);
    }
    if (!exclusives.empty()) return true;
    TRY(auto opens, second_parts(env.txn, keys::opens_of(session), 128));
    for (std::uint64_t inode : opens) {
      if (env.txn.bytes_written() > kStepBytes) break;
      TRYV(ops::close_opens(env, InodeId(inode), UINT64_MAX));
    }
    if (!opens.empty()) return true;
    TRY(auto unsealed, second_parts(env.txn, keys::session_data_of(session), 128));
    for (std::uint64_t data : unsealed) TRYV(ops::abort_object(env, DataId(data)));
    if (!unsealed.empty()) return true;
    TRY(auto replies, second_parts(env.txn, keys::replies(session), 1024));
    for (std::uint64_t sequence : replies) env.txn.erase(keys::reply(session, sequence));
    if (!replies.empty()) return true;

    env.txn.erase(keys::session(session));
    parts_.sessions.erase(session);
    const SessionId lowest = parts_.sessions.lowest();
    parts_.cluster.set_sessions_ended_below(env.txn, lowest.valid() ? lowest : SessionId(env.txn.next_id()));
    return false;
  };
  auto more = co_await arbiter_->perform<bool>(session, std::move(step), Deadline::never());
  co_return more;
}

// --- background ---

void SessionKeeper::tick() {
  for (SessionId session : parts_.sessions.expire()) {
    log_warn("session_expired", "session={} name={}", to_string(session),
             log_quote(parts_.sessions.name(session)));
    parts_.tasks.spawn(parts_.runtime.executor(),
                       end_task(session, "silent for its lease time", Believes::kNo, nullptr));
  }
  arbiter_->tick();
  if (arbiter_->any_lingers() && !collecting_.exchange(true))
    parts_.tasks.spawn(parts_.runtime.executor(), collect_lingering());
}

rpc::Task<> SessionKeeper::run() {
  const Duration step = std::max<Duration>(parts_.config.lease / 20, std::chrono::milliseconds(50));
  for (;;) {
    auto slept = co_await rpc::sleep_for(parts_.runtime, step);
    if (!slept) co_return;
    tick();
    const std::int64_t now = parts_.runtime.clock().now().ns;
    if (now - last_sweep_ns_ < kSweepNs) continue;
    last_sweep_ns_ = now;
    co_await forget_deleted();
  }
}

rpc::Task<> SessionKeeper::collect_lingering() {
  for (bool more = true; more;) {
    LeaseArbiter::Operation<bool> step = [this](ops::Env& env, OpGate&) -> Result<bool> {
      const TimePoint old = parts_.runtime.clock().now() - kLingerFor;
      std::size_t count = 0;
      for (const auto& [inode, since] : arbiter_->lingering()) {
        if (since > old || count == kLingeringStep) break;
        ++count;
        TRYV(collect_orphan(env, inode));
      }
      env.txn.on_commit([this, count] { arbiter_->lingered(count); });
      return count == kLingeringStep;
    };
    auto done = co_await arbiter_->perform<bool>(SessionId{}, std::move(step), Deadline::never());
    if (!done && done.error().code() != Code::kCancelled)
      log_error("replaced_files_not_collected", "error={}", log_quote(done.error().to_string()));
    more = done && *done;
  }
  collecting_ = false;
}

rpc::Task<> SessionKeeper::forget_deleted() {
  const Duration keep = parts_.config.deleted_object_keep;
  for (;;) {
    LeaseArbiter::Operation<bool> step = [keep](ops::Env& env, OpGate&) {
      return ops::forget_deleted(env, env.txn.wall_ns() - keep.count());
    };
    auto more = co_await arbiter_->perform<bool>(SessionId{}, std::move(step), Deadline::never());
    if (!more) {
      log_debug("deleted_objects_kept", "error={}", log_quote(more.error().to_string()));
      co_return;
    }
    if (!*more) co_return;
  }
}

}  // namespace cairn::meta
