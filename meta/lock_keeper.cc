#include "meta/lock_keeper.h"

#include <map>

#include "store/base/log.h"

namespace cairn::meta {

namespace {
constexpr auto kTellMax = std::chrono::seconds(10);
}

Result<> LockKeeper::may_decide(SessionId session) const {
  if (!sessions_.is_alive(session))
    return fail(Code::kSessionEnded, "session " + to_string(session) + " has ended: open a new one");
  if (expected_.empty()) return {};
  return fail(Code::kStarting, "locks wait for clients from before the metadata server's restart");
}

rpc::Task<Result<LockAnswer>> LockKeeper::ask(FileLock wanted, std::uint64_t epoch, std::uint64_t ticket) {
  std::function<Result<LockAnswer>(Txn&)> operation = [this, wanted, epoch,
                                                       ticket](Txn&) -> Result<LockAnswer> {
    auto may = may_decide(wanted.owner.session);
    const bool unlocks = wanted.type == LockType::kNone;
    if (!may && !(unlocks && may.error().code() == Code::kStarting)) return fail(std::move(may.error()));
    TRY(const LockAnswer answer, table_.ask(wanted, epoch, ticket));
    tell_settled();
    return answer;
  };
  auto answer = co_await executor_.run<LockAnswer>(std::move(operation));
  co_return answer;
}

rpc::Task<Result<bool>> LockKeeper::cancel(SessionId session, std::uint64_t epoch, std::uint64_t ticket) {
  std::function<Result<bool>(Txn&)> operation = [this, session, epoch, ticket](Txn&) -> Result<bool> {
    return table_.cancel(session, epoch, ticket);
  };
  auto removed = co_await executor_.run<bool>(std::move(operation));
  co_return removed;
}

rpc::Task<Result<std::optional<FileLock>>> LockKeeper::test(FileLock wanted) {
  using Found = std::optional<FileLock>;
  std::function<Result<Found>(Txn&)> operation = [this, wanted](Txn&) -> Result<Found> {
    TRYV(may_decide(wanted.owner.session));
    return table_.test(wanted);
  };
  auto found = co_await executor_.run<Found>(std::move(operation));
  co_return found;
}

void LockKeeper::expect(SessionId session) {
  expected_.insert(session);
}

Result<> LockKeeper::named(SessionId session, std::uint64_t epoch, const std::vector<FileLock>& locks) {
  TRYV(table_.replace(session, epoch, locks));
  expected_.erase(session);
  tell_settled();
  return {};
}

void LockKeeper::gone(SessionId session) {
  table_.drop(session);
  expected_.erase(session);
  tell_settled();
}

void LockKeeper::tell_settled() {
  std::map<SessionId, std::vector<SettledWait>> by_session;
  for (SettledWait& wait : table_.take_settled()) by_session[wait.session].push_back(wait);
  for (auto& [session, waits] : by_session)
    tasks_.spawn(runtime_.executor(), tell(session, std::move(waits)));
}

rpc::Task<> LockKeeper::tell(SessionId session, std::vector<SettledWait> waits) {
  std::shared_ptr<rpc::Peer> peer = sessions_.peer(session);
  if (!peer || !peer->connected()) co_return;  // it will name what it holds, and ask again
  rpc::OutMessage message;
  auto body = message.body<schema::LocksSettledRequest>();
  body.setEpoch(waits.front().epoch);
  auto items = body.initItems(static_cast<unsigned>(waits.size()));
  for (unsigned i = 0; i < waits.size(); ++i) {
    items[i].setTicket(waits[i].ticket);
    items[i].setOutcome(static_cast<schema::LockOutcome>(waits[i].answer.outcome));
    items[i].setChange(waits[i].answer.change);
  }
  auto told = co_await peer->call(rpc::method::LocksSettled::kNumber, std::move(message),
                                  Deadline::after(runtime_.clock(), kTellMax));
  if (told || told.error().code() == Code::kCancelled) co_return;
  log_warn("lock_grant_not_told", "session={} error={}", to_string(session),
           log_quote(told.error().to_string()));
  peer->close("a lock that was granted could not be told");
}

}  // namespace cairn::meta
