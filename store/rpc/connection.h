// RPC over one stream, in both directions: requests are pipelined, replies come in any order, either side may
// call.
//
//   Server     listens; each accepted connection gets a Peer and calls the Service.
//   Channel    the client's side of one address: connects when first used, reconnects with backoff.
//   Peer       one live connection; also the way to call back (recalls, pokes).
//
// Errors of call(): kUnavailable = not sent, or the peer refused before acting: safe to send elsewhere.
// kMaybeApplied = sent, connection lost before the reply. kTimeout = the deadline passed before it was sent;
// a deadline that passes after sending gives kMaybeApplied for mutations too (callers treat reads alike).
// kCancelled. Any other code is the peer's answer, with the peer's message.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "store/base/ids.h"
#include "store/rpc/message.h"
#include "store/rpc/methods.h"
#include "store/rpc/payload_budget.h"
#include "store/rpc/task.h"
#include "store/rpc/transport.h"

namespace cairn::rpc {

enum class Role : std::uint8_t { kClient = 0, kMeta = 1, kChunkserver = 2 };

// What this process says of itself in Hello, and what it accepts. Constant while in use, except cluster and
// id.
struct Identity {
  Role role = Role::kClient;
  std::function<ClusterId()> cluster;  // 0: not known yet, accept any
  std::function<std::uint64_t()> id;   // server or session id; 0: none yet
  std::string program;
};

struct ConnectionLimits {
  std::size_t requests_in_flight =
      256;  // served at once for one connection; more wait in the socket (back-pressure)
  // Received and not yet answered, one connection; and waiting to be written, before further requests are
  // begun.
  std::size_t payload_bytes_in_flight = 64 << 20;
  // Shared by all clients of a server. (Not by chunkservers: a hop that waited for a client's write, which
  // waits for a hop, would wait for ever.)
  std::shared_ptr<PayloadBudget> clients_payload;
  std::size_t queue_max = 4096;  // calls waiting to be written; more: kOverloaded
  Duration hello_timeout = std::chrono::seconds(10);
  Duration idle_ping =
      std::chrono::seconds(5);  // a quiet connection is probed; without answer for twice that it is closed
};

class Peer : public std::enable_shared_from_this<Peer> {
 public:
  virtual ~Peer() = default;
  // Sends a request and waits for the reply. Thread-safe (any executor); resumes on the caller's executor.
  virtual Task<Result<InMessage>> call(std::uint16_t method, OutMessage request, Deadline deadline) = 0;
  template <class M>
  Task<Result<Reply<typename M::ReplyBody>>> call(OutMessage request, Deadline deadline);
  virtual bool connected() const = 0;
  virtual void close(std::string reason) = 0;
  virtual Role role() const = 0;
  virtual std::uint64_t id() const = 0;  // as the peer said in Hello
  virtual std::string address() const = 0;
  // Called once when the connection has ended, on an io thread. Set before any request can arrive or in
  // on_connect.
  virtual void on_close(std::function<void(const Error&)> callback) = 0;
};

struct Request {
  std::uint16_t method = 0;
  InMessage message;
  Deadline deadline;
  std::shared_ptr<Peer> peer;
  template <class M>
  typename M::Request::Reader body() const {
    return message.body<typename M::Request>();
  }
};

// Serves requests. handle() runs on an io thread (one strand a connection is not guaranteed: any thread),
// concurrently for pipelined requests; it must not block. An Error is sent to the caller as status and
// message. A kj::Exception that leaves it is answered with kProtocol and closes the connection.
class Service {
 public:
  virtual ~Service() = default;
  virtual Task<Result<OutMessage>> handle(Request request) = 0;
  virtual void connected(const std::shared_ptr<Peer>&) {}
};

class Server {
 public:
  // Listens at once (blocking). `service` and `identity` outlive the server.
  static Result<std::unique_ptr<Server>> start(Runtime& runtime, Transport& transport,
                                               const std::string& address, Service& service,
                                               const Identity& identity, const ConnectionLimits& limits = {});
  virtual ~Server() = default;
  virtual std::string address() const = 0;
  // Stops accepting, lets running requests end until the deadline, closes connections. From a non-runtime
  // thread.
  virtual void stop(Deadline deadline) = 0;
};

// A connection that was lost is made again by the next call, not before (keep it busy, or watch
// on_disconnect, where calls of the other side matter). After a failure the next attempt waits 10 ms, doubled
// each time up to 1 s, with jitter; callers wait for that attempt and share its outcome.
class Channel {
 public:
  // `reverse` (may be null) serves calls that the other side makes on this connection; outlives the channel.
  static std::shared_ptr<Channel> create(Runtime& runtime, Transport& transport, std::string address,
                                         const Identity& identity, Service* reverse = nullptr,
                                         const ConnectionLimits& limits = {});
  virtual ~Channel() = default;
  // Connects if needed (waiting for backoff at most until the deadline) and calls.
  virtual Task<Result<InMessage>> call(std::uint16_t method, OutMessage request, Deadline deadline) = 0;
  template <class M>
  Task<Result<Reply<typename M::ReplyBody>>> call(OutMessage request, Deadline deadline);
  // The live connection, connecting if needed.
  virtual Task<Result<std::shared_ptr<Peer>>> connect(Deadline deadline) = 0;
  virtual bool connected() const = 0;
  virtual std::string address() const = 0;
  // Called (io thread) each time an established connection ended.
  virtual void on_disconnect(std::function<void(const Error&)> callback) = 0;
  virtual void close() = 0;  // for good: outstanding calls end with kCancelled
  // close(), and waits until nothing of it runs any more (handlers of `reverse` are cancelled); false: the
  // deadline passed first. From a thread outside the runtime. Only after it may `reverse` be destroyed while
  // the runtime runs.
  virtual bool stop(Deadline deadline) = 0;
};

// Tries a connection and closes it: true only if the address actively refuses (nobody listens: the process is
// gone). A timeout or an unreachable network is never proof.
Task<bool> connect_is_refused(Runtime& runtime, Transport& transport, std::string address, Deadline deadline);

template <class M, class Caller>
Task<Result<Reply<typename M::ReplyBody>>> typed_call(Caller& caller, OutMessage request, Deadline deadline) {
  auto reply = co_await caller.call(M::kNumber, std::move(request), deadline);
  if (!reply) co_return std::unexpected(std::move(reply.error()));
  try {
    co_return Reply<typename M::ReplyBody>(std::move(*reply));
  } catch (const kj::Exception& e) {
    co_return fail(Code::kProtocol,
                   std::string(M::kName) + ": malformed reply: " + e.getDescription().cStr());
  }
}
template <class M>
Task<Result<Reply<typename M::ReplyBody>>> Peer::call(OutMessage request, Deadline deadline) {
  return typed_call<M>(*this, std::move(request), deadline);
}
template <class M>
Task<Result<Reply<typename M::ReplyBody>>> Channel::call(OutMessage request, Deadline deadline) {
  return typed_call<M>(*this, std::move(request), deadline);
}

}  // namespace cairn::rpc
