#include "store/rpc/connection.h"

#include <gtest/gtest.h>

#include <future>
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

  template <class Caller>
  std::future<Result<InMessage>> start(Caller caller, TestMethod method, std::string text,
                                       Duration timeout = 20s) {
    return std::async(std::launch::async,
                      [this, caller, method, text, timeout] { return call(caller, method, text, timeout); });
  }
  void await_waiting(int count) {
    while (service.waiting < count) {
      block_on(runtime, service.entered.wait(in(5s))).value();
      service.entered.reset();
    }
  }
  static Code code_of(const Result<InMessage>& r) { return r ? Code::kOk : r.error().code(); }

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

TEST_P(Calls, PipelinesAndAnswersOutOfOrder) {
  serve();
  auto c = channel();
  auto slow = start(c, kWait, "slow");
  await_waiting(1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(text_of(*call(c, kEcho, std::to_string(i))), std::to_string(i));
  EXPECT_EQ(slow.wait_for(0s), std::future_status::timeout);
  service.gate.set();
  EXPECT_EQ(text_of(*slow.get()), "slow");
  EXPECT_EQ(service.connections, 1);
}

Task<> echo_many(Channel* channel, int count, Deadline deadline, std::atomic<int>* good) {
  for (int i = 0; i < count; ++i) {
    const std::string text = std::to_string(i);
    Buffer payload = Buffer::take(std::string(static_cast<std::size_t>(i * 37 % 30'000), 'p'));
    const std::size_t size = payload.size();
    auto reply = co_await channel->call(kEcho, message(text, std::move(payload)), deadline);
    if (reply && text_of(*reply) == text && reply->payload().size() == size) ++*good;
  }
}

TEST_P(Calls, ManyCallersOnOneConnection) {
  serve();
  auto c = channel();
  std::atomic<int> good = 0;
  std::vector<std::future<void>> callers;
  for (int i = 0; i < 8; ++i) {
    callers.push_back(
        std::async(std::launch::async, [&] { block_on(runtime, echo_many(c.get(), 200, in(60s), &good)); }));
  }
  for (auto& caller : callers) caller.get();
  EXPECT_EQ(good, 1600);
  EXPECT_EQ(service.connections, 1);
}

TEST_P(Calls, EitherSideCalls) {
  serve();
  auto c = channel();
  EXPECT_EQ(text_of(*call(c, kCallBack, "x")), "back x");
  EXPECT_EQ(reverse.handled, 1);
  auto peer = service.peer();
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->role(), Role::kClient);
  EXPECT_EQ(peer->id(), 9u);
  EXPECT_EQ(text_of(*call(peer, kEcho, "from the server")), "from the server");
  auto mine = block_on(runtime, c->connect(in(5s)));
  ASSERT_TRUE(mine);
  EXPECT_EQ((*mine)->role(), Role::kChunkserver);
  EXPECT_EQ((*mine)->id(), 42u);
}

// A server whose handlers wait for a call back to the same client must not wait for ever because the client's
// other requests fill the connection.
TEST_P(Calls, CallsBackPassAFullConnection) {
  ConnectionLimits limits;
  limits.requests_in_flight = 4;
  serve(limits);
  auto c = channel();
  std::vector<std::future<Result<InMessage>>> calls;
  for (int i = 0; i < 40; ++i) calls.push_back(start(c, kCallBack, std::to_string(i)));
  for (auto& one : calls) EXPECT_EQ(code_of(one.get()), Code::kOk);
}

TEST_P(Calls, ErrorsTravel) {
  serve();
  auto c = channel();
  auto refused = call(c, kFail, "no object 'x'");
  EXPECT_EQ(refused.error().code(), Code::kNotFound);
  EXPECT_EQ(refused.error().message(), "no object 'x'");
  auto threw = call(c, kThrowStd, "");
  EXPECT_EQ(threw.error().code(), Code::kInternal);
  EXPECT_EQ(code_of(call(c, static_cast<TestMethod>(9999), "")), Code::kUnimplemented);
  auto typed = block_on(runtime, c->call<method::StatFs>({}, in(5s)));
  EXPECT_EQ(typed.error().code(), Code::kUnimplemented);
  EXPECT_EQ(service.connections, 1);
}

TEST_P(Calls, MalformedRequestIsAnsweredAndEndsTheConnection) {
  serve();
  auto c = channel();
  auto reply = call(c, kThrowKj, "");
  EXPECT_EQ(reply.error().code(), Code::kProtocol) << reply.error().to_string();
  while (c->connected()) std::this_thread::yield();
  auto again = call(c, kEcho, "again");
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(service.connections, 2);
}

TEST_P(Calls, WithoutReverseServiceCallsBackAreRefused) {
  serve();
  auto c = Channel::create(runtime, *transport, listen_at, identity(Role::kClient, 7));
  EXPECT_EQ(code_of(call(c, kCallBack, "x")), Code::kUnimplemented);
  EXPECT_TRUE(c->stop(in(5s)));
}

Task<> keep_result(Channel* channel, TestMethod method, Deadline deadline,
                   std::optional<Result<InMessage>>* out) {
  auto reply = co_await channel->call(method, message("cancel me"), deadline);
  out->emplace(std::move(reply));
}

TEST_P(Calls, CancellationReachesTheHandler) {
  serve();
  auto c = channel();
  for (int round = 1; round <= 3; ++round) {
    TaskGroup group(runtime);
    std::optional<Result<InMessage>> result;
    group.spawn(runtime.make_strand(), keep_result(c.get(), kWait, in(60s), &result));
    await_waiting(1);
    group.close_blocking();
    ASSERT_TRUE(result);
    EXPECT_EQ(code_of(*result), Code::kCancelled);
    while (service.waiting > 0) std::this_thread::yield();
    EXPECT_EQ(service.cancelled, round);
    EXPECT_EQ(code_of(call(c, kEcho, "alive")), Code::kOk);
  }
  EXPECT_EQ(service.connections, 1);
}

TEST_P(Calls, DeadlinesTravelAndEndCalls) {
  serve();
  auto c = channel();
  EXPECT_EQ(code_of(call(c, kEcho, "")), Code::kOk);
  auto late = call(c, kWait, "", 60ms);
  EXPECT_EQ(late.error().code(), Code::kMaybeApplied) << late.error().to_string();
  EXPECT_GT(service.last_left_ms, 0);
  EXPECT_LE(service.last_left_ms, 60);
  while (service.waiting > 0) std::this_thread::yield();
  EXPECT_EQ(service.cancelled, 1);
  EXPECT_EQ(code_of(call(c, kEcho, "", -1s)), Code::kTimeout);
  auto gate = start(c, kWait, "", std::chrono::hours(24 * 365));
  await_waiting(1);
  service.gate.set();
  EXPECT_EQ(code_of(gate.get()), Code::kOk);
}

TEST_P(Calls, SenderHoldsBackWhatTheReceiverDoesNotTake) {
  ConnectionLimits small;
  small.requests_in_flight = 2;
  serve(small);
  ConnectionLimits limits;
  limits.queue_max = 3;
  auto c = channel(limits);
  std::vector<std::future<Result<InMessage>>> calls;
  calls.push_back(start(c, kWait, "1"));
  calls.push_back(start(c, kWait, "2"));
  await_waiting(2);
  // Held back: late and cancelled ones were never sent.
  EXPECT_EQ(code_of(call(c, kEcho, "late", 30ms)), Code::kTimeout);
  {
    TaskGroup group(runtime);
    std::optional<Result<InMessage>> result;
    group.spawn(runtime.make_strand(), keep_result(c.get(), kEcho, in(60s), &result));
    group.close_blocking();
    EXPECT_EQ(code_of(*result), Code::kCancelled);
  }
  EXPECT_EQ(service.handled, 2);
  std::vector<std::future<Result<InMessage>>> more;
  for (int i = 0; i < 20; ++i) more.push_back(start(c, kEcho, "more"));
  std::size_t overloaded = 0;
  while (overloaded < 17) {  // three fit into the queue
    for (auto& one : more) {
      if (one.valid() && one.wait_for(0s) == std::future_status::ready) {
        EXPECT_EQ(code_of(one.get()), Code::kOverloaded);
        ++overloaded;
      }
    }
  }
  service.gate.set();
  for (auto& one : calls) EXPECT_EQ(code_of(one.get()), Code::kOk);
  for (auto& one : more) {
    if (one.valid()) {
      EXPECT_EQ(code_of(one.get()), Code::kOk);
    }
  }
  EXPECT_EQ(service.waiting_max, 2);
}

TEST_P(Calls, PayloadBytesInFlightAreBounded) {
  ConnectionLimits small;
  small.payload_bytes_in_flight = 1 << 20;
  serve(small);
  auto c = channel();
  const auto large = [&](Duration timeout) {
    return code_of(call(c, kWait, "", timeout, Buffer::take(std::string(600'000, 'x'))));
  };
  std::atomic<int> ok = 0;
  const auto send = [&] { ok += large(20s) == Code::kOk; };
  std::vector<std::thread> threads;
  threads.emplace_back(send);
  await_waiting(1);
  EXPECT_EQ(large(100ms), Code::kTimeout);
  for (int i = 0; i < 4; ++i) threads.emplace_back(send);
  service.gate.set();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ok, 5);
  EXPECT_EQ(service.waiting_max, 1);  // never two of them taken up at once
}

TEST_P(Calls, TooLargeMessagesAreTheCallersError) {
  serve();
  auto c = channel();
  EXPECT_EQ(code_of(call(c, kEcho, "", 20s, Buffer::allocate(kPayloadMax + 1))), Code::kInvalidArgument);
  EXPECT_EQ(code_of(call(c, kEcho, std::string(kBodyMax, 'x'))), Code::kInvalidArgument);
  auto reply = call(c, kBulk, std::to_string(kPayloadMax + 1));
  EXPECT_EQ(reply.error().code(), Code::kInternal) << reply.error().to_string();
  EXPECT_EQ(code_of(call(c, kEcho, "alive")), Code::kOk);
  EXPECT_EQ(service.connections, 1);
}

TEST_P(Calls, RefusedAddressFailsFast) {
  if (tcp()) {
    serve();  // a port that was free a moment ago
    server.reset();
  }
  auto c = channel();
  const TimePoint before = clock.now();
  for (int i = 0; i < 5; ++i) {
    auto reply = call(c, kEcho, "", 60s);
    EXPECT_EQ(reply.error().code(), Code::kUnavailable) << reply.error().to_string();
    EXPECT_NE(reply.error().message().find("refused"), std::string::npos) << reply.error().message();
  }
  EXPECT_LT(clock.now() - before, Duration(5s));
  EXPECT_TRUE(block_on(runtime, connect_is_refused(runtime, *transport, listen_at, in(5s))));
  serve();
  EXPECT_FALSE(block_on(runtime, connect_is_refused(runtime, *transport, listen_at, in(5s))));
  auto reply = call(c, kEcho, "now");
  EXPECT_EQ(code_of(reply), Code::kOk);
}

TEST_P(Calls, ReconnectsAfterTheServerRestarted) {
  serve();
  auto c = channel();
  Event disconnected(runtime);
  c->on_disconnect([&](const Error&) { disconnected.set(); });
  for (int round = 0; round < 5; ++round) {
    ASSERT_EQ(code_of(call(c, kEcho, "x")), Code::kOk);
    disconnected.reset();
    server.reset();
    EXPECT_TRUE(block_on(runtime, disconnected.wait(in(5s))));
    EXPECT_FALSE(c->connected());
    serve();
  }
  EXPECT_EQ(code_of(call(c, kEcho, "x")), Code::kOk);
  EXPECT_TRUE(c->stop(in(5s)));  // before `disconnected` goes
}

TEST_P(Calls, WrongClusterNamesBoth) {
  serve({}, 0xaaaa);
  auto c = channel({}, 0xbbbb);
  auto reply = call(c, kEcho, "x");
  EXPECT_EQ(reply.error().code(), Code::kWrongCluster);
  EXPECT_NE(reply.error().message().find("aaaa"), std::string::npos) << reply.error().message();
  EXPECT_NE(reply.error().message().find("bbbb"), std::string::npos) << reply.error().message();
  EXPECT_EQ(service.connections, 0);
  auto newcomer = channel({}, 0);
  EXPECT_EQ(code_of(call(newcomer, kEcho, "x")), Code::kOk);  // not known yet: accepted
}

TEST_P(Calls, StopLetsRunningRequestsEnd) {
  serve();
  auto c = channel();
  auto running = start(c, kWait, "kept");
  await_waiting(1);
  std::thread stopping([&] { server->stop(in(30s)); });
  // The goodbye arrives: the channel takes its calls elsewhere, and there is nobody.
  while (c->connected()) std::this_thread::yield();
  EXPECT_EQ(code_of(call(c, kEcho, "new")), Code::kUnavailable);
  service.gate.set();
  EXPECT_EQ(code_of(running.get()), Code::kOk);
  stopping.join();
  EXPECT_EQ(service.handled, 1);
}

TEST_P(Calls, StopAtItsDeadlineCancelsHandlers) {
  serve();
  auto c = channel();
  auto running = start(c, kWait, "cut");
  await_waiting(1);
  server->stop(in(10ms));
  EXPECT_EQ(code_of(running.get()), Code::kMaybeApplied);
  EXPECT_EQ(service.cancelled, 1);
}

TEST_P(Calls, ClosingTheChannelEndsItsCalls) {
  serve();
  auto c = channel();
  auto running = start(c, kWait, "x");
  await_waiting(1);
  c->close();
  EXPECT_EQ(code_of(running.get()), Code::kCancelled);
  EXPECT_EQ(code_of(call(c, kEcho, "x")), Code::kCancelled);
  while (service.waiting > 0) std::this_thread::yield();
  EXPECT_EQ(service.cancelled, 1);
}

TEST_P(Calls, PeerCloseIsSeenOnBothSides) {
  serve();
  auto c = channel();
  ASSERT_EQ(code_of(call(c, kEcho, "x")), Code::kOk);
  auto peer = service.peer();
  auto seen = std::make_shared<Event>(runtime);
  peer->on_close([seen](const Error&) { seen->set(); });
  peer->close("session ended");
  EXPECT_TRUE(block_on(runtime, seen->wait(in(5s))));
  EXPECT_FALSE(peer->connected());
  EXPECT_EQ(code_of(call(peer, kEcho, "x")), Code::kUnavailable);
  Event later(runtime);
  peer->on_close([&](const Error& e) {
    EXPECT_NE(e.message().find("session ended"), std::string::npos);
    later.set();
  });
  EXPECT_TRUE(later.is_set());
}

TEST_P(Calls, DroppingAChannelWhileItConnectsIsHarmless) {
  serve();
  for (int i = 0; i < 20; ++i) {
    auto c = Channel::create(runtime, *transport, listen_at, identity(Role::kClient, 7));
    auto reply = start(c, kEcho, "x");
    if (i % 2 == 0) c->close();
    c.reset();
    const Code code = code_of(reply.get());
    EXPECT_TRUE(code == Code::kOk || code == Code::kCancelled) << code_name(code);
  }
}

TEST_P(Calls, QuietConnectionsArePingedAndLive) {
  ConnectionLimits limits;
  limits.idle_ping = 50ms;  // a busy machine may let a live peer wait for a while
  serve(limits);
  auto c = channel(limits);
  ASSERT_EQ(code_of(call(c, kEcho, "x")), Code::kOk);
  // Much longer than it takes to give a dead peer up.
  EXPECT_TRUE(block_on(runtime, sleep_for(runtime, 1s)));
  EXPECT_TRUE(c->connected());
  EXPECT_EQ(service.connections, 1);
}

class CutNetwork : public Calls {};
INSTANTIATE_TEST_SUITE_P(Memory, CutNetwork, ::testing::Values("memory"));

TEST_P(CutNetwork, CallsEndAndComeBackWhenItHeals) {
  serve();
  auto c = channel();
  auto running = start(c, kWait, "x");
  await_waiting(1);
  network->cut(listen_at);
  EXPECT_EQ(code_of(running.get()), Code::kMaybeApplied);
  EXPECT_EQ(code_of(call(c, kEcho, "x")), Code::kUnavailable);
  EXPECT_FALSE(block_on(runtime, connect_is_refused(runtime, *transport, listen_at, in(5s))));
  network->heal(listen_at);
  EXPECT_EQ(code_of(call(c, kEcho, "x")), Code::kOk);
}

TEST(StoppedRuntime, CallsInFlightAreDestroyedWithIt) {
  SystemClock clock;
  MemoryTransport transport;
  auto kept = std::make_shared<int>(0);
  {
    Runtime runtime(clock, 2, "test");
    TestService service(runtime);
    auto server = *Server::start(runtime, transport, "s", service, identity(Role::kMeta));
    auto channel = Channel::create(runtime, transport, "s", identity(Role::kClient));
    auto caller = [](std::shared_ptr<Channel> channel, std::shared_ptr<int> kept) -> Task<> {
      auto reply = co_await channel->call(kWait, message("x"), Deadline::never());
      (void)reply;
      (void)kept;
    };
    for (int i = 0; i < 10; ++i) asio::co_spawn(runtime.make_strand(), caller(channel, kept), asio::detached);
    while (service.waiting < 10) std::this_thread::yield();
    runtime.stop();
  }
  EXPECT_EQ(kept.use_count(), 1);
}

}  // namespace
}  // namespace cairn::rpc::testing
