#include "client/session.h"

#include <unistd.h>

#include <algorithm>

#include "store/base/log.h"

namespace cairn::client {
namespace {

constexpr std::size_t kReassertMax = 50'000;  // ids in one message (a body is at most 4 MiB)
constexpr std::size_t kLocksMax = 20'000;     // locks in one message
constexpr auto kConnectTry = std::chrono::seconds(5);

// Grows from 5 ms to 500 ms.
class Backoff {
 public:
  Duration next() {
    const Duration now = wait_;
    wait_ = std::min<Duration>(wait_ * 2, std::chrono::milliseconds(500));
    return now;
  }

 private:
  Duration wait_ = std::chrono::milliseconds(5);
};

Deadline earlier(Deadline a, Deadline b) {
  return a < b ? a : b;
}

}  // namespace

class Session::Awaited {
 public:
  explicit Awaited(Session& session) : session_(session) {
    std::lock_guard lock(session_.mutex_);
    sequence_ = session_.next_sequence();
    session_.awaited_.insert(sequence_);
  }
  ~Awaited() {
    std::lock_guard lock(session_.mutex_);
    session_.awaited_.erase(sequence_);
  }
  Awaited(const Awaited&) = delete;
  std::uint64_t sequence() const { return sequence_; }
  std::uint64_t lowest() const {
    std::lock_guard lock(session_.mutex_);
    return *session_.awaited_.begin();
  }

 private:
  Session& session_;
  std::uint64_t sequence_ = 0;
};

Session::Session(rpc::Runtime& runtime, rpc::Transport& transport, Options options)
    : runtime_(runtime),
      options_(std::move(options)),
      tasks_(runtime),
      wake_(runtime),
      attaching_(runtime, 1) {
  identity_.role = rpc::Role::kClient;
  identity_.cluster = [this] { return cluster(); };
  identity_.id = [this] { return id().value(); };
  identity_.program = "cairn-client " + options_.name;
  for (const auto& address : options_.meta) {
    channels_.push_back(
        rpc::Channel::create(runtime, transport, address, identity_, static_cast<rpc::Service*>(this)));
    channels_.back()->on_disconnect([this](const Error&) { wake_.set(); });
  }
}

Session::~Session() {
  for (auto& channel : channels_) channel->close();
  tasks_.close_blocking();
}

void Session::set_holder(LeaseHolder* holder) {
  holder_ = holder;
}

Duration Session::lease_left() const {
  return std::max<Duration>(Duration{0}, lease_until() - runtime_.clock().now());
}

rpc::Task<Result<>> Session::start(Deadline deadline) {
  auto link = co_await attach(deadline);
  if (!link) co_return fail(std::move(link.error()));
  tasks_.spawn(runtime_.make_strand(), keep_alive());
  co_return Result<>{};
}

rpc::Task<> Session::close(Deadline deadline) {
  if (closed_.exchange(true)) co_return;
  lease_until_ = 0;
  auto link = current_link();
  if (link) {
    rpc::OutMessage message;
    message.body<schema::CloseSessionRequest>().setSession(link->session.value());
    auto reply = co_await link->peer->call(rpc::method::CloseSession::kNumber, std::move(message), deadline);
    if (!reply)
      log_debug("session_close", "session={} error={}", to_string(link->session),
                log_quote(reply.error().to_string()));
  }
  wake_.set();
  co_await tasks_.close();
  for (auto& channel : channels_) channel->close();
}

std::optional<Session::Link> Session::current_link() {
  std::lock_guard lock(mutex_);
  if (!peer_ || !peer_->connected() || !id().valid()) return std::nullopt;
  return Link{peer_, id(), attachment()};
}

rpc::Task<Result<Session::Link>> Session::attached(Deadline deadline) {
  if (closed()) co_return fail(Code::kCancelled, "the client is closed");
  if (auto link = current_link()) co_return std::move(*link);
  auto link = co_await attach(deadline);
  co_return link;
}

rpc::Task<Result<Session::Link>> Session::attach(Deadline deadline) {
  auto turn = co_await attaching_.take(1, deadline);
  if (!turn) co_return fail(turn.error().with("connecting to the metadata server"));
  if (auto link = current_link()) co_return std::move(*link);
  const bool first = !cluster().valid();
  std::string tried;
  Backoff backoff;
  for (std::size_t attempt = 0;; ++attempt) {
    if (closed()) co_return fail(Code::kCancelled, "the client is closed");
    auto channel = channels_[address_];
    const Deadline one = earlier(deadline, Deadline::after(runtime_.clock(), kConnectTry));
    auto peer = co_await channel->connect(one);
    std::optional<Error> error;
    if (peer) {
      auto opened = co_await open_on(*peer, one);
      if (opened) {
        auto link = current_link();
        if (link) co_return std::move(*link);
        error.emplace(Code::kUnavailable, "connection lost");
      } else {
        error.emplace(std::move(opened.error()));
        if (error->code() != Code::kStarting) (*peer)->close("session not opened: " + error->to_string());
      }
    } else {
      error.emplace(std::move(peer.error()));
    }
    if (error->code() == Code::kWrongCluster || error->code() == Code::kVersionMismatch ||
        error->code() == Code::kNeedsOperator || error->code() == Code::kCancelled) {
      co_return fail(error->with("metadata server " + channel->address()));
    }
    if (attempt < channels_.size()) {
      if (!tried.empty()) tried += "; ";
      if (!error->message().starts_with(channel->address())) tried += channel->address() + ": ";
      tried += error->message();
    }
    address_ = (address_ + 1) % channels_.size();
    const bool starting = error->code() == Code::kStarting;
    if ((first && !starting && attempt + 1 >= channels_.size()) || deadline.passed(runtime_.clock())) {
      co_return fail(Code::kUnavailable, "no metadata server answers (" + tried + ")");
    }
    auto slept = co_await rpc::sleep_for(runtime_, backoff.next());
    if (!slept) co_return fail(std::move(slept.error()));
  }
}

rpc::Task<Result<>> Session::open_on(std::shared_ptr<rpc::Peer> peer, Deadline deadline) {
  const SessionId before = id();
  const TimePoint sent = runtime_.clock().now();
  rpc::OutMessage message;
  auto body = message.body<schema::OpenSessionRequest>();
  body.setName(options_.name);
  body.setResume(before.value());
  auto reply = co_await peer->call<rpc::method::OpenSession>(std::move(message), deadline);
  if (!reply) {
    if (reply.error().code() == Code::kSessionEnded && before.valid()) ended(before);
    co_return fail(std::move(reply.error()));
  }
  const SessionId session((*reply)->getSession());
  if (!session.valid()) co_return fail(Code::kProtocol, "OpenSession: the server gave no session");
  if (before.valid() && (session != before || !(*reply)->getResumed())) ended(before);
  cluster_ = (*reply)->getCluster();
  const std::uint64_t attachment = attachment_.fetch_add(1) + 1;
  if (session == before) {
    auto named = co_await reassert(peer, session, attachment, deadline);
    if (!named) {
      if (named.error().code() == Code::kSessionEnded) ended(session);
      co_return named;
    }
  }
  {
    std::scoped_lock lock(ending_, mutex_);
    peer_ = peer;
    id_ = session.value();
  }
  renewed(sent, (*reply)->getLeaseMs());
  if (on_routing_) on_routing_((*reply)->getRoutingVersion());
  log_debug("session_attached", "session={} server={} resumed={}", to_string(session), peer->address(),
            session == before);
  co_return Result<>{};
}

rpc::Task<Result<>> Session::reassert(std::shared_ptr<rpc::Peer> peer, SessionId session,
                                      std::uint64_t attachment, Deadline deadline) {
  Held held;
  if (holder_ != nullptr) held = holder_->held(attachment);
  auto named = co_await name_locks(peer, session, held, deadline);
  if (!named) co_return named;
  const auto part_of = [](const std::vector<std::uint64_t>& all, std::size_t from) {
    const std::size_t begin = std::min(from, all.size());
    return std::span(all).subspan(begin, std::min(kReassertMax, all.size() - begin));
  };
  const std::size_t most = std::max({held.exclusive.size(), held.shared.size(), held.open.size()});
  for (std::size_t from = 0;; from += kReassertMax) {
    rpc::OutMessage message;
    auto body = message.body<schema::ReassertRequest>();
    body.setSession(session.value());
    const auto exclusive = part_of(held.exclusive, from);
    const auto shared = part_of(held.shared, from);
    const auto open = part_of(held.open, from);
    body.setExclusive(kj::ArrayPtr<const std::uint64_t>(exclusive.data(), exclusive.size()));
    body.setShared(kj::ArrayPtr<const std::uint64_t>(shared.data(), shared.size()));
    body.setOpen(kj::ArrayPtr<const std::uint64_t>(open.data(), open.size()));
    const bool last = from + kReassertMax >= most;
    body.setLast(last);
    auto reply = co_await peer->call(rpc::method::Reassert::kNumber, std::move(message), deadline);
    if (!reply) {
      // Somebody else holds exclusively what we believe to share: it was given away while we were not heard.
      if (reply.error().code() == Code::kLeaseLost && holder_ != nullptr) holder_->drop_shared();
      co_return fail(std::move(reply.error()));
    }
    if (last) co_return Result<>{};
  }
}

// Before the rest: they count with the last Reassert. Also when there are none: the server forgets what it
// granted and could not tell.
rpc::Task<Result<>> Session::name_locks(std::shared_ptr<rpc::Peer> peer, SessionId session, const Held& held,
                                        Deadline deadline) {
  std::size_t from = 0;
  do {
    const std::size_t count = std::min(kLocksMax, held.locks.size() - from);
    rpc::OutMessage message;
    auto body = message.body<schema::NameLocksRequest>();
    body.setSession(session.value());
    body.setEpoch(held.lock_epoch);
    auto list = body.initLocks(static_cast<unsigned>(count));
    for (unsigned i = 0; i < count; ++i) encode(held.locks[from + i], list[i]);
    from += count;
    auto reply = co_await peer->call(rpc::method::NameLocks::kNumber, std::move(message), deadline);
    if (!reply) co_return fail(std::move(reply.error()));
  } while (from < held.locks.size());
  co_return Result<>{};
}

void Session::renewed(TimePoint sent, std::uint32_t lease_ms) {
  if (lease_ms != 0) lease_ms_ = lease_ms;
  const Duration lease = std::chrono::milliseconds(lease_ms_.load());
  const std::int64_t until = (sent + lease - lease / 10).ns;
  std::int64_t now = lease_until_.load();
  while (now < until && !closed() && !lease_until_.compare_exchange_weak(now, until)) {
  }
}

void Session::ended(SessionId session) {
  std::lock_guard ending(
      ending_);  // nothing is asked for under a new one before all of this one was given up
  {
    std::lock_guard lock(mutex_);
    if (id() != session) return;
    id_ = 0;
    peer_.reset();
    lease_until_ = 0;
    attachment_.fetch_add(1);
  }
  log_warn("session_ended", "session={} what=\"unsaved data of open files is lost\"", to_string(session));
  if (holder_ != nullptr) holder_->session_ended(session);
  wake_.set();
}

rpc::Task<Result<>> Session::touch(Deadline deadline) {
  std::function<void(schema::KeepAliveRequest::Builder, std::uint64_t)> fill =
      [](schema::KeepAliveRequest::Builder body, std::uint64_t session) { body.setSession(session); };
  const TimePoint sent = runtime_.clock().now();  // of the first try: the lease ends rather too early
  auto reply = co_await query<rpc::method::KeepAlive>(std::move(fill), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  renewed(sent, (*reply)->getLeaseMs());
  co_return Result<>{};
}

rpc::Task<> Session::verify(Deadline deadline) {
  const Duration patience = std::chrono::milliseconds(lease_ms_.load()) / 2;
  auto asked = co_await touch({std::min(deadline.at, runtime_.clock().now() + patience)});
  if (!asked) wake_.set();  // keep_alive() goes on trying
}

rpc::Task<> Session::keep_alive() {
  while (!closed()) {
    const Duration lease = std::chrono::milliseconds(lease_ms_.load());
    wake_.reset();
    auto link = current_link();
    if (!link) {
      auto again = co_await attach(Deadline::after(runtime_.clock(), lease * 2));
      if (again) link = std::move(*again);
      if (!again && again.error().code() == Code::kCancelled) co_return;
    }
    if (link) {
      const TimePoint sent = runtime_.clock().now();
      rpc::OutMessage message;
      message.body<schema::KeepAliveRequest>().setSession(link->session.value());
      auto peer = link->peer;
      auto reply = co_await peer->call<rpc::method::KeepAlive>(std::move(message), {sent + lease / 2});
      if (reply) {
        renewed(sent, (*reply)->getLeaseMs());
        near_full_ = (*reply)->getNearFull();
        if (on_routing_) on_routing_((*reply)->getRoutingVersion());
      } else if (reply.error().code() == Code::kSessionEnded) {
        ended(link->session);
        continue;
      } else if (reply.error().code() == Code::kCancelled) {
        co_return;
      } else if (link->peer->connected()) {
        // Silent for half a lease: a stopped server or a broken network. Try a new connection.
        link->peer->close("no answer to a keepalive");
      }
    }
    auto woken = co_await wake_.wait(Deadline::after(runtime_.clock(), lease / 4));
    if (!woken && woken.error().code() == Code::kCancelled) co_return;
  }
}

rpc::Task<Result<rpc::InMessage>> Session::exchange(std::uint16_t method, Make make, Kind kind,
                                                    Deadline deadline, Stamp* stamp, SessionId within) {
  const bool mutation = kind == Kind::kMutation;
  std::optional<Awaited> awaited;
  if (mutation) awaited.emplace(*this);
  SessionId bound = within;
  bool sent_before = false;  // an earlier attempt may have been carried out
  Backoff backoff;
  const auto name = [&] { return std::string(rpc::method_name(method)); };
  for (;;) {
    auto link = co_await attached(deadline);
    if (!link) {
      if (!sent_before) co_return fail(link.error().with(name()));
      co_return fail(Code::kMaybeApplied, name() + ": " + link.error().message());
    }
    if (bound.valid() && mutation && link->session != bound) {
      co_return fail(sent_before ? Code::kMaybeApplied : Code::kSessionEnded,
                     name() + ": session " + to_string(bound) + " ended");
    }
    bound = link->session;
    if (stamp != nullptr) *stamp = {link->session, link->attachment, recalls_.load(), sent_before};
    Attempt attempt{link->session, 0, 0};
    if (mutation) {
      attempt.sequence = awaited->sequence();
      attempt.awaited = awaited->lowest();
    }
    auto message = make(attempt);
    auto peer = link->peer;
    auto reply = co_await peer->call(method, std::move(message), deadline);
    if (reply) co_return std::move(*reply);
    const Code code = reply.error().code();
    switch (code) {
      case Code::kUnavailable:
      case Code::kStarting:
      case Code::kOverloaded:
        break;
      case Code::kMaybeApplied:
        sent_before = true;
        break;
      case Code::kSessionEnded:
        ended(link->session);
        // Refused, and bound to nothing of that session: the next one may do it.
        if (!mutation || (!sent_before && !within.valid())) {
          bound = within;
          break;
        }
        co_return fail(sent_before ? Code::kMaybeApplied : Code::kSessionEnded,
                       name() + ": " + reply.error().message());
      default:
        co_return fail(std::move(reply.error()));
    }
    if (deadline.passed(runtime_.clock())) {
      const Code last = sent_before && mutation       ? Code::kMaybeApplied
                        : code == Code::kMaybeApplied ? Code::kTimeout
                                                      : code;
      co_return fail(last, name() + ": " + reply.error().message());
    }
    auto slept =
        co_await rpc::sleep_until(runtime_, std::min(deadline.at, runtime_.clock().now() + backoff.next()));
    if (!slept)
      co_return fail(sent_before && mutation ? Code::kMaybeApplied : Code::kCancelled,
                     name() + ": the client is closing");
  }
}

rpc::Task<Result<rpc::OutMessage>> Session::handle(rpc::Request request) {
  if (request.method == rpc::method::LocksSettled::kNumber) {
    auto body = request.body<rpc::method::LocksSettled>();
    std::vector<SettledLock> settled;
    for (const auto item : body.getItems()) {
      settled.push_back(
          {item.getTicket(), item.getOutcome() == schema::LockOutcome::GRANTED, item.getChange()});
    }
    if (holder_ != nullptr) holder_->locks_settled(body.getEpoch(), std::move(settled));
    rpc::OutMessage reply;
    reply.body<schema::Empty>();
    co_return reply;
  }
  if (request.method != rpc::method::Recall::kNumber) {
    co_return fail(Code::kUnimplemented,
                   "a client does not serve " + std::string(rpc::method_name(request.method)));
  }
  std::vector<RecallItem> items;
  for (auto item : request.body<rpc::method::Recall>().getRecalls()) {
    items.push_back({InodeId(item.getInode()), decode(item.getKeep()), item.getGeneration()});
  }
  const std::uint64_t serial = recalls_.fetch_add(1) + 1;
  if (holder_ != nullptr) co_await holder_->recall(std::move(items), serial);
  rpc::OutMessage reply;
  reply.body<schema::Empty>();
  co_return reply;
}

}  // namespace cairn::client
