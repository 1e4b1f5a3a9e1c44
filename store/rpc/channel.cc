#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "store/base/rng.h"
#include "store/rpc/live_connection.h"

namespace cairn::rpc {
namespace {

constexpr Duration kBackoffMin = std::chrono::milliseconds(10);
constexpr Duration kBackoffMax = std::chrono::seconds(1);

// Before the attempt that follows `failures` in a row: doubled each time, and jittered, so that the clients
// of a server that restarts do not all come at once.
Duration backoff(unsigned failures) {
  if (failures == 0) return Duration::zero();
  const Duration full = std::min(kBackoffMax, kBackoffMin * (std::int64_t{1} << std::min(failures - 1, 10u)));
  SystemRng rng;
  return full / 2 +
         Duration(static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(full.count() / 2) + 1)));
}

Error closed_error(const std::string& address) {
  return Error(Code::kCancelled, address + ": the channel was closed");
}

// One try to connect; many callers may wait for it.
struct Attempt {
  Event done;
  std::optional<Error> error;  // set before done
  explicit Attempt(Runtime& runtime) : done(runtime) {}
};

class ChannelImpl final : public Channel, public std::enable_shared_from_this<ChannelImpl> {
 public:
  ChannelImpl(Runtime& runtime, Transport& transport, std::string address, const LiveSetup& setup)
      : runtime_(runtime), transport_(transport), address_(std::move(address)), setup_(setup) {}
  ~ChannelImpl() override { ChannelImpl::close(); }

  using Channel::call;
  Task<Result<InMessage>> call(std::uint16_t method, OutMessage request, Deadline deadline) override {
    if (auto connection = live()) return connection->call(method, std::move(request), deadline);
    return connect_and_call(shared_from_this(), method, std::move(request), deadline);
  }

  Task<Result<std::shared_ptr<Peer>>> connect(Deadline deadline) override {
    auto self = shared_from_this();
    for (;;) {
      std::shared_ptr<Attempt> attempt;
      {
        std::lock_guard lock(self->mutex_);
        if (self->closed_) co_return fail(closed_error(self->address_));
        if (self->connection_ && self->connection_->connected()) {
          co_return std::static_pointer_cast<Peer>(self->connection_);
        }
        const TimePoint now = self->runtime_.clock().now();
        if (now >= deadline.at)
          co_return fail(Code::kTimeout, self->address_ + ": no connection before the deadline");
        if (!self->attempt_) {
          if (self->next_attempt_ >= deadline.at && self->next_attempt_ > now) {
            co_return fail(Code::kUnavailable,
                           fmt::format("{}: the next attempt to connect is after the deadline; {}",
                                       self->address_, self->last_error_));
          }
          self->start_attempt_locked();
        }
        attempt = self->attempt_;
      }
      auto waited = co_await attempt->done.wait(deadline);
      if (!waited) co_return fail(waited.error().with(self->address_ + ": connecting"));
      if (attempt->error) co_return fail(*attempt->error);
    }
  }

  bool connected() const override { return live() != nullptr; }
  std::string address() const override { return address_; }

  void on_disconnect(std::function<void(const Error&)> callback) override {
    std::lock_guard lock(mutex_);
    on_disconnect_ = std::move(callback);
  }

  void close() override {
    std::shared_ptr<LiveConnection> connection;
    std::shared_ptr<Attempt> attempt;
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      closed_ = true;
      connection = std::move(connection_);
      attempt = std::move(attempt_);
      if (attempt) attempt->error = closed_error(address_);
    }
    if (attempt) attempt->done.set();
    if (connection) connection->end(closed_error(address_), closed_error(address_));
  }

  bool stop(Deadline deadline) override {
    close();
    return setup_.live->wait(runtime_, deadline);
  }

 private:
  static Task<Result<InMessage>> connect_and_call(std::shared_ptr<ChannelImpl> self, std::uint16_t method,
                                                  OutMessage request, Deadline deadline) {
    auto peer = co_await self->connect(deadline);
    if (!peer) co_return fail(peer.error().with(method_name(method)));
    std::shared_ptr<Peer> connection = std::move(*peer);
    self.reset();  // the call belongs to the connection; the channel may go
    auto reply = co_await connection->call(method, std::move(request), deadline);
    co_return reply;
  }

  std::shared_ptr<LiveConnection> live() const {
    std::lock_guard lock(mutex_);
    if (closed_ || !connection_ || !connection_->connected()) return nullptr;
    return connection_;
  }

  void start_attempt_locked() {
    attempt_ = std::make_shared<Attempt>(runtime_);
    auto task = attempt(weak_from_this(), attempt_, next_attempt_, LiveCount::Token(setup_.live), &runtime_,
                        &transport_, address_, setup_);
    asio::any_io_executor strand = runtime_.make_strand();
    // Posted: it must not run inside this call, under the lock.
    asio::post(strand, [strand, task = std::move(task)]() mutable {
      asio::co_spawn(strand, std::move(task), asio::detached);
    });
  }

  // Does not keep the channel: when its user drops it, nobody waits for the attempt. The runtime and the
  // transport outlive it (see Channel::create).
  static Task<> attempt(std::weak_ptr<ChannelImpl> channel, std::shared_ptr<Attempt> attempt, TimePoint at,
                        LiveCount::Token token, Runtime* runtime, Transport* transport, std::string address,
                        LiveSetup setup) {
    co_await asio::this_coro::throw_if_cancelled(false);
    auto slept = co_await sleep_until(*runtime, at);
    if (!slept || channel.expired()) co_return;
    const Deadline deadline = Deadline::after(runtime->clock(), setup.limits.hello_timeout);
    auto stream = co_await transport->connect(*runtime, address, deadline);
    if (!stream) {
      if (auto self = channel.lock()) self->attempt_failed(attempt, std::move(stream.error()));
      co_return;
    }
    if (channel.expired()) co_return;
    auto connection = std::make_shared<LiveConnection>(setup, std::move(*stream), Side::kConnecting);
    auto strand = connection->strand();
    asio::co_spawn(
        strand,
        live(std::move(channel), std::move(attempt), std::move(token), std::move(connection), runtime),
        asio::detached);
  }

  // The life of one connection, on its strand. stop() waits for it, and so for the callback at its end.
  static Task<> live(std::weak_ptr<ChannelImpl> channel, std::shared_ptr<Attempt> attempt,
                     [[maybe_unused]] LiveCount::Token token, std::shared_ptr<LiveConnection> connection,
                     Runtime* runtime) {
    co_await asio::this_coro::throw_if_cancelled(false);
    auto greeted = co_await LiveConnection::greet(connection);
    if (auto self = channel.lock()) {
      if (!greeted) {
        self->attempt_failed(attempt, std::move(greeted.error()));
      } else {
        self->established(attempt, connection);
      }
    } else {
      connection->close("the channel is gone");
    }
    if (!greeted) co_return;
    const TimePoint since = runtime->clock().now();
    co_await LiveConnection::run(connection);
    const Duration lived = runtime->clock().now() - since;
    if (auto self = channel.lock()) self->disconnected(connection, lived);
  }

  void established(const std::shared_ptr<Attempt>& attempt,
                   const std::shared_ptr<LiveConnection>& connection) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) {
        connection->close("the channel was closed");
        return;
      }
      connection_ = connection;
      attempt_.reset();
    }
    attempt->done.set();
  }

  void attempt_failed(const std::shared_ptr<Attempt>& attempt, Error error) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      ++failures_;
      next_attempt_ = runtime_.clock().now() + backoff(failures_);
      last_error_ = error.to_string();
      attempt->error = std::move(error);
      attempt_.reset();
    }
    attempt->done.set();
  }

  void disconnected(const std::shared_ptr<LiveConnection>& connection, Duration lived) {
    const Error reason = connection->end_reason();
    std::function<void(const Error&)> callback;
    {
      std::lock_guard lock(mutex_);
      if (connection_ == connection) connection_.reset();
      // A server that accepts and drops is not hammered either.
      failures_ = lived >= kBackoffMax ? 0 : failures_ + 1;
      next_attempt_ = runtime_.clock().now() + backoff(failures_);
      last_error_ = reason.to_string();
      callback = on_disconnect_;
    }
    if (callback) callback(reason);
  }

  Runtime& runtime_;
  Transport& transport_;
  const std::string address_;
  const LiveSetup setup_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool closed_ = false;
  std::shared_ptr<LiveConnection> connection_;
  std::shared_ptr<Attempt> attempt_;  // the one going on
  unsigned failures_ = 0;
  TimePoint next_attempt_;
  std::string last_error_;
  std::function<void(const Error&)> on_disconnect_;
};

}  // namespace

std::shared_ptr<Channel> Channel::create(Runtime& runtime, Transport& transport, std::string address,
                                         const Identity& identity, Service* reverse,
                                         const ConnectionLimits& limits) {
  const LiveSetup setup{&runtime, identity, reverse, limits, std::make_shared<LiveCount>()};
  return std::make_shared<ChannelImpl>(runtime, transport, std::move(address), setup);
}

Task<bool> connect_is_refused(Runtime& runtime, Transport& transport, std::string address,
                              Deadline deadline) {
  auto stream = co_await transport.connect(runtime, std::move(address), deadline);
  co_return !stream && stream.error().code() == Code::kUnavailable &&
      stream.error().message().find("refused") != std::string::npos;
}

}  // namespace cairn::rpc
