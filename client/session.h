// Session: this process as the metadata server knows it, across reconnects and restarts of the server.
//
// Problem it solves: every call to the metadata server ends within its deadline with an answer, although
// connections break and the server restarts; a mutation takes place at most once. Leases live as long as the
// session does.
//
// Lease: counted from the send time of a renewal and ended 10 % early, so that this side always stops first.
// Reconnect: the session is resumed, and all leases and file locks held are named again (a restarted server
// has forgotten shared ones, and all locks). Mutations carry (session, sequence) and are repeated under the
// same pair until their deadline, never in another session: what can't be resolved ends as kMaybeApplied.
// Queries are repeated in whatever session there is. End: when the server says that the session ended,
// LeaseHolder::session_ended() is called before a new one is opened.
//
// Threading: thread-safe; coroutines run on any io thread. Owner: the client. Shutdown: close(), then
// destroy.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "client/budget.h"
#include "client/lock_wire.h"
#include "client/wire.h"
#include "store/rpc/connection.h"

namespace cairn::client {

// When a reply's request was sent, as far as it matters for the leases that the reply grants: a grant is void
// if a recall of the inode or a new attachment came in between, or if the reply is a stored one from before a
// reconnect.
struct Stamp {
  SessionId session;
  std::uint64_t attachment = 0;
  std::uint64_t recalls = 0;
  bool replayed = false;
};

struct Held {
  std::vector<std::uint64_t> exclusive, shared, open;
  std::vector<NamedLock> locks;
  std::uint64_t lock_epoch = 0;  // that begins with naming them
};

// The cache, as the session sees it. Called on io threads; must not call back into the session from
// session_ended().
class LeaseHolder {
 public:
  virtual ~LeaseHolder() = default;
  // Gives up what is recalled; ends when dirty bytes are flushed and reported and nothing of it is cached any
  // more. `serial` is the number of this recall: see Stamp::recalls.
  virtual rpc::Task<> recall(std::vector<RecallItem> items, std::uint64_t serial) = 0;
  // All that is held, to be named to a server that may have restarted. Grants of earlier attachments are void
  // from here.
  virtual Held held(std::uint64_t attachment) = 0;
  // The server gave something away that is held shared here: all shared leases are dropped.
  virtual void drop_shared() = 0;
  // Waits for file locks that ended at the server.
  virtual void locks_settled(std::uint64_t epoch, std::vector<SettledLock> items) = 0;
  // Leases and file locks are gone, and what was dirty with them.
  virtual void session_ended(SessionId ended) = 0;
};

class Session final : private rpc::Service {
 public:
  struct Options {
    std::vector<std::string> meta;
    std::string name;
  };
  Session(rpc::Runtime& runtime, rpc::Transport& transport, Options options);
  ~Session() override;

  void set_holder(LeaseHolder* holder);  // before start()
  // Opens the session; each address is tried. kUnavailable names every address and why it failed.
  rpc::Task<Result<>> start(Deadline deadline);
  // Closes the session at the server (best effort), and ends all calls with kCancelled.
  rpc::Task<> close(Deadline deadline);

  SessionId id() const { return SessionId(id_.load(std::memory_order_acquire)); }
  ClusterId cluster() const { return ClusterId(cluster_.load(std::memory_order_acquire)); }
  // Leases may be relied upon until then.
  TimePoint lease_until() const { return {lease_until_.load(std::memory_order_acquire)}; }
  bool alive() const { return runtime_.clock().now() < lease_until(); }
  Duration lease_left() const;
  std::uint64_t attachment() const { return attachment_.load(std::memory_order_acquire); }
  bool near_full() const { return near_full_.load(std::memory_order_relaxed); }
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // Sequence of a chunk mutation: grows, unique in this process.
  std::uint64_t next_sequence() { return sequence_.fetch_add(1, std::memory_order_relaxed); }
  // A chunkserver said that the session ended. Asks the metadata server, so that whoever hears of the error
  // works in the new session afterwards; bounded by half a lease.
  rpc::Task<> verify(Deadline deadline);
  // Renews the lease now, waiting for the server if need be.
  rpc::Task<Result<>> touch(Deadline deadline);
  void on_routing_version(std::function<void(std::uint64_t)> callback) { on_routing_ = std::move(callback); }

  // A call that changes nothing. `fill` gets the body and the session id; it may be called several times.
  template <class M>
  rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> query(
      std::function<void(typename M::Request::Builder, std::uint64_t session)> fill, Deadline deadline,
      Stamp* stamp = nullptr);
  // A mutation. `fill` sets everything but the body's `mutation`. If `within` is valid it is sent in that
  // session only (kSessionEnded otherwise).
  template <class M>
  rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> mutate(
      std::function<void(typename M::Request::Builder)> fill, Deadline deadline, Stamp* stamp = nullptr,
      SessionId within = {});

 private:
  struct Attempt {
    SessionId session;
    std::uint64_t sequence = 0;
    std::uint64_t awaited = 0;
  };
  struct Link {
    std::shared_ptr<rpc::Peer> peer;
    SessionId session;
    std::uint64_t attachment = 0;
  };
  class Awaited;  // a sequence whose reply is waited for
  using Make = std::function<rpc::OutMessage(const Attempt&)>;
  enum class Kind { kQuery, kMutation };

  rpc::Task<Result<rpc::InMessage>> exchange(std::uint16_t method, Make make, Kind kind, Deadline deadline,
                                             Stamp* stamp, SessionId within);
  // The live connection on which this session is attached; connects and resumes if needed.
  rpc::Task<Result<Link>> attached(Deadline deadline);
  rpc::Task<Result<Link>> attach(Deadline deadline);
  rpc::Task<Result<>> open_on(std::shared_ptr<rpc::Peer> peer, Deadline deadline);
  rpc::Task<Result<>> reassert(std::shared_ptr<rpc::Peer> peer, SessionId session, std::uint64_t attachment,
                               Deadline deadline);
  rpc::Task<Result<>> name_locks(std::shared_ptr<rpc::Peer> peer, SessionId session, const Held& held,
                                 Deadline deadline);
  rpc::Task<> keep_alive();
  std::optional<Link> current_link();
  void renewed(TimePoint sent, std::uint32_t lease_ms);
  void ended(SessionId session);
  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override;

  rpc::Runtime& runtime_;
  const Options options_;
  rpc::Identity identity_;
  LeaseHolder* holder_ = nullptr;
  std::function<void(std::uint64_t)> on_routing_;
  std::vector<std::shared_ptr<rpc::Channel>> channels_;  // one an address
  rpc::TaskGroup tasks_;
  rpc::Event wake_;   // the keeper: look at the connection now
  Budget attaching_;  // one at a time

  std::atomic<std::uint64_t> id_{0};
  std::atomic<std::uint64_t> cluster_{0};
  std::atomic<std::int64_t> lease_until_{0};
  std::atomic<std::uint64_t> attachment_{0};
  std::atomic<std::uint64_t> recalls_{0};
  std::atomic<std::uint64_t> sequence_{1};
  std::atomic<std::uint32_t> lease_ms_{10'000};
  std::atomic<bool> near_full_{false};
  std::atomic<bool> closed_{false};

  std::mutex ending_;  // before mutex_
  std::mutex mutex_;
  std::shared_ptr<rpc::Peer> peer_;  // guarded by mutex_: attached
  std::set<std::uint64_t> awaited_;  // guarded by mutex_
  std::size_t address_ = 0;          // only while attaching_ is held
};

template <class M>
rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> Session::query(
    std::function<void(typename M::Request::Builder, std::uint64_t)> fill, Deadline deadline, Stamp* stamp) {
  Make make = [fill = std::move(fill)](const Attempt& attempt) {
    rpc::OutMessage message;
    fill(message.body<typename M::Request>(), attempt.session.value());
    return message;
  };
  auto reply = co_await exchange(M::kNumber, std::move(make), Kind::kQuery, deadline, stamp, SessionId{});
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded(M::kName, [&] { return rpc::Reply<typename M::ReplyBody>(std::move(*reply)); });
}

template <class M>
rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> Session::mutate(
    std::function<void(typename M::Request::Builder)> fill, Deadline deadline, Stamp* stamp,
    SessionId within) {
  Make make = [fill = std::move(fill)](const Attempt& attempt) {
    rpc::OutMessage message;
    auto body = message.body<typename M::Request>();
    auto mutation = body.initMutation();
    mutation.setSession(attempt.session.value());
    mutation.setSequence(attempt.sequence);
    mutation.setAwaited(attempt.awaited);
    fill(body);
    return message;
  };
  auto reply = co_await exchange(M::kNumber, std::move(make), Kind::kMutation, deadline, stamp, within);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded(M::kName, [&] { return rpc::Reply<typename M::ReplyBody>(std::move(*reply)); });
}

}  // namespace cairn::client
