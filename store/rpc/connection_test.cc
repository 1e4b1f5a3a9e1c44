#include "store/rpc/connection.h"

#include <gtest/gtest.h>

#include <thread>

#include "store/rpc/test_service.h"

namespace cairn::rpc::testing {
namespace {

// Over both transports: what a call means does not depend on the stream.
class Calls : public ::testing::TestWithParam<const char*> {
 protected:
  Calls() : runtime(clock, 2, "test"), service(runtime), reverse(runtime) {
    if (tcp()) {
      transport = std::make_unique<TcpTransport>();
      listen_at = "127.0.0.1:0";
    } else {
      auto memory = std::make_unique<MemoryTransport>();
      network = memory.get();
      transport = std::move(memory);
      listen_at = "server";
    }
  }
  ~Calls() override {
    service.gate.set();
    reverse.gate.set();
    for (auto& channel : channels) EXPECT_TRUE(channel->stop(in(10s)));
    server.reset();
    runtime.stop();
  }
  bool tcp() const { return std::string(GetParam()) == "tcp"; }
  Deadline in(Duration d) { return Deadline::after(clock, d); }
  void serve(ConnectionLimits limits = {}, std::uint64_t cluster = 7) {
    auto started = Server::start(runtime, *transport, listen_at, service,
                                 identity(Role::kChunkserver, cluster, 42), limits);
    ASSERT_TRUE(started) << started.error().to_string();
    server = std::move(*started);
    listen_at = server->address();
  }
  std::shared_ptr<Channel> channel(ConnectionLimits limits = {}, std::uint64_t cluster = 7) {
    channels.push_back(Channel::create(runtime, *transport, listen_at, identity(Role::kClient, cluster, 9),
                                       &reverse, limits));
    return channels.back();
  }
  template <class Caller>
  Result<InMessage> call(Caller& caller, TestMethod method, std::string_view text, Duration timeout = 20s,
                         Buffer payload = {}) {
    return block_on(runtime, caller->call(method, message(text, std::move(payload)), in(timeout)));
  }

  SystemClock clock;
  Runtime runtime;
  TestService service;
  TestService reverse;
  std::unique_ptr<Transport> transport;
  MemoryTransport* network = nullptr;
  std::string listen_at;
  std::unique_ptr<Server> server;
  std::vector<std::shared_ptr<Channel>> channels;
};
INSTANTIATE_TEST_SUITE_P(Transports, Calls, ::testing::Values("memory", "tcp"));

TEST_P(Calls, EchoesTextAndPayload) {
  serve();
  auto c = channel();
  EXPECT_FALSE(c->connected());
  auto reply = call(c, kEcho, "hello");
  ASSERT_TRUE(reply) << reply.error().to_string();
  EXPECT_EQ(text_of(*reply), "hello");
  EXPECT_EQ(reply->payload().size(), 0u);
  for (std::size_t size : {1ul, 5000ul, 16'000ul, 17'000ul, 4ul << 20, kPayloadMax}) {
    std::string bytes(size, 'x');
    for (std::size_t i = 0; i < size; i += 97) bytes[i] = static_cast<char>(i);
    auto bulk = call(c, kEcho, "bulk", 20s, Buffer::take(bytes));
    ASSERT_TRUE(bulk) << bulk.error().to_string();
    EXPECT_TRUE(as_text(bulk->payload().bytes()) == bytes) << size;
  }
  EXPECT_TRUE(c->connected());
  EXPECT_EQ(service.connections, 1);
}

}  // namespace
}  // namespace cairn::rpc::testing
