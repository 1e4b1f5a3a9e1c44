#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "store/base/log.h"
#include "store/rpc/live_connection.h"

namespace cairn::rpc {
namespace {

constexpr Duration kAcceptRetry = std::chrono::milliseconds(100);
constexpr Duration kEndWarning = std::chrono::seconds(10);

// What the coroutines of a server share with it.
struct Shared {
  Runtime& runtime;
  const std::unique_ptr<Listener> listener;
  LiveSetup setup;
  std::mutex mutex;
  bool stopping = false;                                   // guarded by mutex
  std::vector<std::weak_ptr<LiveConnection>> connections;  // guarded by mutex
  std::size_t prune_at = 64;                               // guarded by mutex

  Shared(Runtime& r, std::unique_ptr<Listener> l) : runtime(r), listener(std::move(l)) {}

  // False: stopping, not added.
  bool add(const std::shared_ptr<LiveConnection>& connection) {
    std::lock_guard lock(mutex);
    if (stopping) return false;
    if (connections.size() >= prune_at) {
      std::erase_if(connections, [](const auto& weak) { return weak.expired(); });
      prune_at = std::max<std::size_t>(64, 2 * connections.size());
    }
    connections.push_back(connection);
    return true;
  }
};

Task<> serve_connection(std::shared_ptr<LiveConnection> connection) {
  co_await asio::this_coro::throw_if_cancelled(false);
  auto greeted = co_await LiveConnection::greet(connection);
  if (greeted) co_await LiveConnection::run(connection);
}

Task<> accept_loop(std::shared_ptr<Shared> shared, [[maybe_unused]] LiveCount::Token token) {
  co_await asio::this_coro::throw_if_cancelled(false);
  for (;;) {
    auto stream = co_await shared->listener->accept();
    {
      std::lock_guard lock(shared->mutex);
      if (shared->stopping) co_return;
    }
    if (!stream) {
      // Out of descriptors, or the client left while it waited: neither may end the server.
      log_warn("rpc_accept_failed", "address={} reason={}", shared->listener->address(),
               log_quote(stream.error().message()));
      auto slept = co_await sleep_for(shared->runtime, kAcceptRetry);
      if (!slept) co_return;
      continue;
    }
    auto connection = std::make_shared<LiveConnection>(shared->setup, std::move(*stream), Side::kAccepting);
    if (!shared->add(connection)) co_return;
    auto strand = connection->strand();
    asio::co_spawn(strand, serve_connection(std::move(connection)), asio::detached);
  }
}

class ServerImpl final : public Server {
 public:
  explicit ServerImpl(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
    LiveCount::Token token(shared_->setup.live);
    asio::co_spawn(shared_->runtime.make_strand(), accept_loop(shared_, std::move(token)), asio::detached);
  }
  ~ServerImpl() override { ServerImpl::stop(Deadline{shared_->runtime.clock().now()}); }

  std::string address() const override { return shared_->listener->address(); }

  void stop(Deadline deadline) override {
    std::vector<std::weak_ptr<LiveConnection>> connections;
    {
      std::lock_guard lock(shared_->mutex);
      shared_->stopping = true;
      connections = shared_->connections;
    }
    shared_->listener->close();
    for (auto& weak : connections) {
      if (auto connection = weak.lock()) connection->begin_goodbye();
    }
    if (shared_->setup.live->wait(shared_->runtime, deadline)) return;
    for (auto& weak : connections) {
      if (auto connection = weak.lock()) {
        connection->end(Error(Code::kUnavailable, connection->address() + ": the server was stopped"));
      }
    }
    // Handlers are cancelled now. What they refer to must stay until they have ended, however long that
    // takes.
    while (!shared_->setup.live->wait(shared_->runtime,
                                      Deadline::after(shared_->runtime.clock(), kEndWarning))) {
      log_error("rpc_server_stop_waits",
                "address={} reason=\"request handlers do not end after being cancelled\"", address());
    }
  }

 private:
  const std::shared_ptr<Shared> shared_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(Runtime& runtime, Transport& transport,
                                              const std::string& address, Service& service,
                                              const Identity& identity, const ConnectionLimits& limits) {
  TRY(auto listener, transport.listen(runtime, address));
  auto shared = std::make_shared<Shared>(runtime, std::move(listener));
  shared->setup = {&runtime, identity, &service, limits, std::make_shared<LiveCount>()};
  return std::make_unique<ServerImpl>(std::move(shared));
}

}  // namespace cairn::rpc
