// What hostile, broken and slow peers may do to a server: nothing but lose their own connection.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <set>
#include <thread>

#include "store/base/log.h"
#include "store/base/rng.h"
#include "store/rpc/connection.h"
#include "store/rpc/frame_reader.h"
#include "store/rpc/outgoing.h"
#include "store/rpc/test_service.h"

namespace cairn::rpc::testing {
namespace {

std::string raw_wire(FrameHeader header, OutMessage message) {
  if (header.payload_checksum == 0) header.payload_checksum = payload_checksum(message.payload);
  Outgoing out;
  out.add(header, message.builder().getSegmentsForOutput(), std::move(message.payload));
  std::string bytes;
  for (Bytes piece : out.pieces(0)) bytes.append(as_text(piece));
  return bytes;
}

std::string hello(std::uint16_t min = 1, std::uint16_t max = 1) {
  OutMessage out;
  auto body = out.body<schema::Hello>();
  body.setProtocolMin(min);
  body.setProtocolMax(max);
  body.setProgram("raw");
  return raw_wire({.kind = FrameKind::kHello}, std::move(out));
}

std::string request(std::uint64_t id, TestMethod method, std::string_view text, Buffer payload = {}) {
  return raw_wire({.kind = FrameKind::kRequest, .method = method, .id = id},
                  message(text, std::move(payload)));
}

// Gives damaged bytes right checksums, as somebody who means it would.
std::string reseal(std::string bytes) {
  if (bytes.size() < kHeaderSize) return bytes;
  std::uint32_t words;
  std::memcpy(&words, bytes.data() + 20, 4);
  const std::size_t body = std::min(std::size_t{words} * 8, bytes.size() - kHeaderSize);
  std::memset(bytes.data() + 18, 0, 2);
  std::memset(bytes.data() + 32, 0, 8);
  const std::uint64_t sum =
      XXH3_64bits_withSeed(bytes.data() + kHeaderSize, body, XXH3_64bits(bytes.data(), kHeaderSize));
  std::memcpy(bytes.data() + 32, &sum, 8);
  const std::uint64_t check = XXH3_64bits(bytes.data(), kHeaderSize);
  std::memcpy(bytes.data() + 18, &check, 2);
  return bytes;
}

// A client that writes whatever bytes it likes.
class RawClient {
 public:
  RawClient(Runtime& runtime, Transport& transport, const std::string& address) : runtime_(runtime) {
    auto connected = block_on(runtime, connect(&runtime, &transport, address));
    CHECK(connected.has_value(), "connected");
    stream_ = std::move(*connected);
  }
  ~RawClient() { stream_->close(); }
  bool send(std::string_view bytes) { return block_on(runtime_, write(stream_.get(), bytes)).has_value(); }
  // The next frame; nothing: the server closed the connection.
  std::optional<Frame> receive() { return block_on(runtime_, read(stream_.get(), &reader_)); }
  // Reads what comes until the server closes.
  void drain() {
    while (receive()) {
    }
  }
  void close() { stream_->close(); }
  // Takes an answer if there is one soon: the server may be waiting for the rest of half a frame.
  void receive_or_hang_up() {
    std::jthread impatience([this] {
      std::this_thread::sleep_for(2ms);
      stream_->close();
    });
    receive();
  }

 private:
  static Task<Result<std::unique_ptr<Stream>>> connect(Runtime* runtime, Transport* transport,
                                                       std::string address) {
    return transport->connect(*runtime, std::move(address), Deadline::after(runtime->clock(), 10s));
  }
  static Task<Result<>> write(Stream* stream, std::string_view bytes) {
    const Bytes pieces[] = {as_bytes(bytes)};
    auto result = co_await stream->write_all(pieces);
    co_return result;
  }
  static Task<std::optional<Frame>> read(Stream* stream, FrameReader* reader) {
    for (;;) {
      auto frame = reader->next();
      if (!frame) co_return std::nullopt;
      if (*frame) co_return std::move(*frame);
      auto n = co_await stream->read_some(reader->space());
      if (!n || *n == 0) co_return std::nullopt;
      reader->filled(*n);
    }
  }
  Runtime& runtime_;
  std::unique_ptr<Stream> stream_;
  FrameReader reader_;
};

class Robust : public ::testing::TestWithParam<const char*> {
 protected:
  Robust() : runtime(clock, 2, "test"), service(runtime) {
    log_set_level(LogLevel::kError);
    if (std::string(GetParam()) == "tcp") {
      transport = std::make_unique<TcpTransport>();
      address = "127.0.0.1:0";
    } else {
      transport = std::make_unique<MemoryTransport>();
      address = "server";
    }
  }
  ~Robust() override {
    service.gate.set();
    server.reset();
    runtime.stop();
    log_set_level(LogLevel::kInfo);
  }
  void serve(ConnectionLimits limits = {}) {
    server = *Server::start(runtime, *transport, address, service, identity(Role::kMeta, 7, 1), limits);
    address = server->address();
  }
  std::unique_ptr<RawClient> raw() { return std::make_unique<RawClient>(runtime, *transport, address); }
  std::unique_ptr<RawClient> greeted() {
    auto client = raw();
    EXPECT_TRUE(client->send(hello()));
    auto reply = client->receive();
    EXPECT_TRUE(reply && reply->header.kind == FrameKind::kHelloReply && reply->header.status == 0);
    return client;
  }
  void expect_alive() {
    auto c = Channel::create(runtime, *transport, address, identity(Role::kClient, 7));
    auto reply = block_on(runtime, c->call(kEcho, message("alive"), Deadline::after(clock, 20s)));
    ASSERT_TRUE(reply) << reply.error().to_string();
    EXPECT_EQ(text_of(*reply), "alive");
    EXPECT_TRUE(c->stop(Deadline::after(clock, 10s)));
  }
  static Code status_of(const std::optional<Frame>& frame) {
    return frame ? code_from_number(frame->header.status) : Code::kUnavailable;
  }

  SystemClock clock;
  Runtime runtime;
  TestService service;
  std::unique_ptr<Transport> transport;
  std::string address;
  std::unique_ptr<Server> server;
};
INSTANTIATE_TEST_SUITE_P(Transports, Robust, ::testing::Values("memory", "tcp"));

TEST_P(Robust, VersionMismatchNamesBoth) {
  serve();
  auto client = raw();
  client->send(hello(2, 9));
  auto reply = client->receive();
  ASSERT_TRUE(reply);
  EXPECT_EQ(status_of(reply), Code::kVersionMismatch);
  InMessage in(std::move(reply->body), {});
  EXPECT_NE(text_of(in).find("protocol 2 to 9, this program 1"), std::string::npos) << text_of(in);
  EXPECT_FALSE(client->receive());
  expect_alive();
}

TEST_P(Robust, FirstFrameMustBeHello) {
  serve();
  auto client = raw();
  client->send(request(1, kEcho, "x"));
  EXPECT_EQ(status_of(client->receive()), Code::kProtocol);
  EXPECT_FALSE(client->receive());
  auto http = raw();
  http->send("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody lost\r\n\r\n");
  http->drain();
  EXPECT_EQ(service.handled, 0);
  expect_alive();
}

TEST_P(Robust, NoHelloInTimeIsClosed) {
  ConnectionLimits limits;
  limits.hello_timeout = 20ms;
  serve(limits);
  auto client = raw();
  EXPECT_FALSE(client->receive());
  expect_alive();
}

TEST_P(Robust, ProtocolViolationsCloseTheConnection) {
  serve();
  const std::string violations[] = {
      hello(),                                                              // a second hello
      raw_wire({.kind = FrameKind::kReply, .id = 77}, message("unasked")),  // to a request that was not sent
      request(5, kWait, "x") + request(5, kWait, "x"),                      // one number twice
      raw_wire({.kind = FrameKind::kHelloReply}, message("x")),
      raw_wire({.kind = FrameKind::kRequest, .method = kEcho, .id = 1, .payload_checksum = 1},
               message("x", Buffer::take("wrong checksum"))),
      std::string(48, '\0'),
  };
  for (const std::string& bytes : violations) {
    auto client = greeted();
    client->send(bytes);
    client->drain();  // returns: the server closed it
  }
  while (service.waiting > 0) std::this_thread::yield();
  expect_alive();
}

TEST_P(Robust, MalformedBodiesCloseTheConnection) {
  serve();
  // A right checksum over a body that is no message: a segment table that promises too much, a root out of
  // bounds.
  const std::uint64_t bodies[][2] = {{0xffff'ffff'0000'0000ull, 0},
                                     {0x0000'0001'0000'0000ull, 0x0002'0001'7fff'fff0ull},
                                     {0x0000'0001'0000'0001ull, 0}};
  for (const auto& body : bodies) {
    // append_frame() writes a table of its own; so the bytes are put behind the header of a body of the same
    // size.
    OutMessage same;
    same.body<schema::Empty>();
    std::string bytes = raw_wire({.kind = FrameKind::kRequest, .method = kEcho, .id = 1}, std::move(same));
    ASSERT_EQ(bytes.size(), kHeaderSize + 16);
    bytes.replace(kHeaderSize, 16, reinterpret_cast<const char*>(body), 16);
    auto client = greeted();
    client->send(reseal(bytes));
    client->drain();
  }
  expect_alive();
}

TEST_P(Robust, OversizedFramesAreRefusedBeforeTheyArrive) {
  serve();
  for (std::size_t field : {20, 24}) {  // body_words, payload_bytes
    std::string bytes = request(1, kEcho, "x");
    const std::uint32_t huge = 0x7fffffff;
    std::memcpy(bytes.data() + field, &huge, 4);
    auto client = greeted();
    client->send(reseal(bytes));
    client->drain();
  }
  expect_alive();
}

TEST_P(Robust, EveryTruncationIsHarmless) {
  serve();
  const std::string bytes = request(1, kEcho, "truncate", Buffer::take(std::string(100, 'x')));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    auto client = greeted();
    client->send(std::string_view(bytes).substr(0, size));
    client->close();
  }
  EXPECT_EQ(service.handled, 0);
  expect_alive();
}

TEST_P(Robust, MutatedFrames) {
  serve();
  SeededRng rng(20240917);
  for (int round = 0; round < 400; ++round) {
    SCOPED_TRACE(round);
    auto client = rng.one_in(4) ? raw() : greeted();
    std::string stream;
    for (std::uint64_t frames = 1 + rng.below(12); frames > 0; --frames) {
      const auto id = rng.below(6);
      std::string bytes;
      switch (rng.below(6)) {
        case 0:
          bytes = hello();
          break;
        case 1:
          bytes = raw_wire({.kind = FrameKind::kCancel, .id = id}, {});
          break;
        case 2:
          bytes = raw_wire({.kind = FrameKind::kPing, .id = id}, {});
          break;
        case 3:
          bytes = raw_wire({.kind = FrameKind::kGoodbye, .id = id}, {});
          break;
        case 4:
          bytes = request(id, kWait, "wait");
          break;
        default:
          bytes = request(id, kEcho, "text", Buffer::take(std::string(rng.below(20'000), 'm')));
      }
      // Half of the damage passes the checksums, so that what lies behind them is reached too.
      for (std::uint64_t changes = rng.below(4); changes > 0; --changes) {
        const std::size_t where =
            rng.one_in(2) ? rng.below(std::min<std::size_t>(bytes.size(), 80)) : rng.below(bytes.size());
        bytes[where] = static_cast<char>(rng.next());
      }
      if (rng.one_in(2)) bytes = reseal(bytes);
      if (rng.one_in(10)) bytes.resize(rng.below(bytes.size() + 1));
      stream += bytes;
    }
    client->send(stream);
    if (rng.one_in(2)) client->receive_or_hang_up();
    if (round % 100 == 0) expect_alive();
  }
  service.gate.set();
  expect_alive();
}

// A client that writes requests and reads nothing: the server stops taking requests, and goes on when it
// reads.
TEST_P(Robust, SlowReaderHoldsOnlyItself) {
  ConnectionLimits limits;
  limits.requests_in_flight = 8;
  limits.payload_bytes_in_flight = 1 << 20;
  serve(limits);
  auto client = greeted();
  constexpr int kRequests = 100;
  std::string all;
  for (int i = 0; i < kRequests; ++i)
    all += request(static_cast<std::uint64_t>(i), kBulk, std::to_string(1 << 20));
  ASSERT_TRUE(client->send(all));  // small: fits into the buffers of the stream
  expect_alive();
  // Replies of a megabyte each: a few lie in the stream's buffers, at most eight more were begun.
  EXPECT_LT(service.handled, 60);
  std::set<std::uint64_t> answered;
  while (answered.size() < kRequests) {
    auto reply = client->receive();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->payload.size(), 1u << 20);
    EXPECT_TRUE(answered.insert(reply->header.id).second);
  }
  EXPECT_EQ(service.handled, kRequests + 1);
}

// More requests than Hello allowed: they wait in the stream, and a cancel behind them waits with them.
TEST_P(Robust, RequestsOverTheLimitWaitInTheStream) {
  ConnectionLimits limits;
  limits.requests_in_flight = 3;
  serve(limits);
  auto client = greeted();
  std::string filler(15'000, 'f');  // so that one read does not bring them all
  for (std::uint64_t i = 0; i < 14; ++i) ASSERT_TRUE(client->send(request(i, kWait, filler)));
  while (service.waiting < 4) std::this_thread::yield();
  expect_alive();
  EXPECT_LE(service.waiting_max, 6);
  service.gate.set();
  for (int i = 0; i < 14; ++i) ASSERT_EQ(status_of(client->receive()), Code::kOk);
}

// Many clients together hold no more than the server allows, and one request each; all are served in the end.
TEST_P(Robust, ClientsShareWhatAServerHolds) {
  constexpr std::size_t kPayload = 100'000, kClients = 4, kRequests = 10;
  ConnectionLimits limits;
  limits.clients_payload = std::make_shared<PayloadBudget>(3 * kPayload);
  serve(limits);
  const rpc::Buffer payload = Buffer::take(std::string(kPayload, 'p'));
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<std::jthread> senders;
  for (std::size_t i = 0; i < kClients; ++i) clients.push_back(greeted());
  for (auto& client : clients) {
    senders.emplace_back([&client, &payload] {
      for (std::size_t i = 0; i < kRequests; ++i) client->send(request(i, kWait, "wait", payload));
    });
  }
  while (service.waiting < 4) std::this_thread::yield();
  for (int i = 0; i < 10; ++i) expect_alive();  // without a payload: not held up
  service.gate.set();
  for (auto& client : clients) {
    for (std::size_t i = 0; i < kRequests; ++i) ASSERT_EQ(status_of(client->receive()), Code::kOk);
  }
  EXPECT_LE(service.waiting_max, 3 + 1 + static_cast<int>(kClients));
}

TEST_P(Robust, PingFloodWithoutReadingDoesNotGrowTheQueue) {
  serve();
  auto client = greeted();
  std::string pings;
  for (std::uint64_t i = 0; i < 20'000; ++i) pings += raw_wire({.kind = FrameKind::kPing, .id = i}, {});
  client->send(pings);
  client->send(request(1, kEcho, "after"));
  for (;;) {
    auto frame = client->receive();
    ASSERT_TRUE(frame);
    if (frame->header.kind == FrameKind::kReply) break;
  }
}

// A server that takes the connection and then says nothing.
struct Mute {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> stream;
};
Task<> mute_server(Mute* mute, bool answer_hello) {
  auto stream = co_await mute->listener->accept();
  if (!stream) co_return;
  mute->stream = std::move(*stream);
  if (!answer_hello) co_return;
  OutMessage out;
  out.body<schema::HelloReply>().setProtocol(kProtocolVersion);
  const std::string bytes = raw_wire({.kind = FrameKind::kHelloReply}, std::move(out));
  const Bytes pieces[] = {as_bytes(bytes)};
  auto written = co_await mute->stream->write_all(pieces);
  CHECK(written.has_value(), "written");
}

TEST_P(Robust, DeadPeersAreGivenUp) {
  Mute mute;
  mute.listener = *transport->listen(runtime, address);
  TaskGroup group(runtime);
  group.spawn(runtime.make_strand(), mute_server(&mute, true));
  ConnectionLimits limits;
  limits.idle_ping = 10ms;
  auto c = Channel::create(runtime, *transport, mute.listener->address(), identity(Role::kClient, 7), nullptr,
                           limits);
  auto reply = block_on(runtime, c->call(kEcho, message("anybody?"), Deadline::after(clock, 60s)));
  EXPECT_EQ(reply.error().code(), Code::kMaybeApplied);
  EXPECT_NE(reply.error().message().find("no answer to a ping"), std::string::npos)
      << reply.error().message();
  EXPECT_TRUE(c->stop(Deadline::after(clock, 10s)));
  mute.listener->close();
  group.close_blocking();
}

TEST_P(Robust, ServersThatDoNotGreetAreGivenUp) {
  Mute mute;
  mute.listener = *transport->listen(runtime, address);
  TaskGroup group(runtime);
  group.spawn(runtime.make_strand(), mute_server(&mute, false));
  ConnectionLimits limits;
  limits.hello_timeout = 200ms;
  auto c = Channel::create(runtime, *transport, mute.listener->address(), identity(Role::kClient, 7), nullptr,
                           limits);
  auto reply = block_on(runtime, c->call(kEcho, message("anybody?"), Deadline::after(clock, 60s)));
  EXPECT_FALSE(reply);
  EXPECT_NE(reply.error().message().find("no hello within 200 ms"), std::string::npos)
      << reply.error().message();
  EXPECT_TRUE(c->stop(Deadline::after(clock, 10s)));
  mute.listener->close();
  group.close_blocking();
}

TEST(Addresses, MistakesAreNamed) {
  SystemClock clock;
  Runtime runtime(clock, 1, "test");
  TcpTransport transport;
  for (const char* bad : {"", "localhost", "localhost:", ":1", "localhost:99999", "localhost:1x", "::1:80"}) {
    auto listener = transport.listen(runtime, bad);
    ASSERT_FALSE(listener) << bad;
    EXPECT_EQ(listener.error().code(), Code::kConfig) << bad;
  }
  auto first = transport.listen(runtime, "localhost:0");
  ASSERT_TRUE(first) << first.error().to_string();
  auto second = transport.listen(runtime, (*first)->address());
  EXPECT_EQ(second.error().code(), Code::kUnavailable);
  auto late = block_on(runtime, transport.connect(runtime, (*first)->address(), Deadline{clock.now()}));
  EXPECT_EQ(late.error().code(), Code::kTimeout);
}

}  // namespace
}  // namespace cairn::rpc::testing
