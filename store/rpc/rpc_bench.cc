// Speed of RPC over loopback TCP, beside a raw Asio ping-pong of the same sizes on the same kind of sockets.
//   rpc_bench [--benchmark_filter=...]     not built by default: ninja rpc_bench
#include <benchmark/benchmark.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>

#include "store/rpc/connection.h"
#include "store/rpc/test_service.h"

namespace cairn::rpc {
namespace {

using namespace testing;
using asio::ip::tcp;

// Server and client in one process, each with its own loop of one thread, as two programs would be.
struct Bench {
  SystemClock clock;
  Runtime server_runtime{clock, 1, "server"};
  Runtime client_runtime{clock, 1, "client"};
  TcpTransport transport;
  TestService service{server_runtime};
  std::unique_ptr<Server> server =
      *Server::start(server_runtime, transport, "127.0.0.1:0", service, identity(Role::kMeta));
  std::shared_ptr<Channel> channel =
      Channel::create(client_runtime, transport, server->address(), identity(Role::kClient));
  ~Bench() { channel->stop(Deadline::after(clock, 10s)); }
};

Task<> small_calls(Channel* channel, Deadline deadline, int count) {
  for (int i = 0; i < count; ++i) {
    auto reply = co_await channel->call(kEcho, message("twenty-four bytes of text"), deadline);
    CHECK(reply.has_value(), reply.error().to_string());
  }
}

Task<> parallel_calls(Runtime* runtime, Channel* channel, Deadline deadline, int callers, int count) {
  TaskGroup group(*runtime);
  auto strand = runtime->make_strand();
  std::atomic<int> left = callers;
  Event done(*runtime);
  auto one = [](Channel* channel, Deadline deadline, int count, std::atomic<int>* left,
                Event* done) -> Task<> {
    co_await small_calls(channel, deadline, count);
    if (--*left == 0) done->set();
  };
  for (int i = 0; i < callers; ++i) group.spawn(strand, one(channel, deadline, count, &left, &done));
  auto waited = co_await done.wait(deadline);
  CHECK(waited.has_value(), "all callers end");
  co_await group.close();
}

void BM_SmallCall(benchmark::State& state) {
  Bench bench;
  constexpr int kCount = 2000;
  for (auto _ : state) {
    block_on(bench.client_runtime,
             small_calls(bench.channel.get(), Deadline::after(bench.clock, 60s), kCount));
  }
  state.SetItemsProcessed(state.iterations() * kCount);
}
BENCHMARK(BM_SmallCall)->UseRealTime()->MeasureProcessCPUTime()->Unit(benchmark::kMillisecond);

void BM_PipelinedCalls(benchmark::State& state) {
  Bench bench;
  const int callers = static_cast<int>(state.range(0));
  constexpr int kCount = 1000;
  for (auto _ : state) {
    block_on(bench.client_runtime, parallel_calls(&bench.client_runtime, bench.channel.get(),
                                                  Deadline::after(bench.clock, 60s), callers, kCount));
  }
  state.SetItemsProcessed(state.iterations() * callers * kCount);
}
BENCHMARK(BM_PipelinedCalls)
    ->Arg(4)
    ->Arg(16)
    ->Arg(64)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

Task<> upload(Channel* channel, Deadline deadline, Buffer bytes, int count, bool self_checked) {
  for (int i = 0; i < count; ++i) {
    OutMessage out = message("", bytes);
    out.payload.self_checked = self_checked;
    auto reply = co_await channel->call(kSink, std::move(out), deadline);
    CHECK(reply.has_value(), reply.error().to_string());
  }
}

Task<> download(Channel* channel, Deadline deadline, std::size_t size, int count) {
  for (int i = 0; i < count; ++i) {
    auto reply = co_await channel->call(kSource, message(std::to_string(size)), deadline);
    CHECK(reply.has_value() && reply->payload().size() == size, "the call succeeds");
  }
}

// Arguments: bytes, in flight, self-checked.
void BM_Upload(benchmark::State& state) {
  Bench bench;
  const Buffer bytes = Buffer::allocate(static_cast<std::size_t>(state.range(0)));
  Buffer(bytes).writable()[0] = std::byte{1};
  for (auto _ : state) {
    block_on(bench.client_runtime,
             upload(bench.channel.get(), Deadline::after(bench.clock, 60s), bytes, 32, state.range(1) != 0));
  }
  state.SetBytesProcessed(state.iterations() * 32 * state.range(0));
}
BENCHMARK(BM_Upload)
    ->ArgsProduct({{1 << 20, 4 << 20}, {0, 1}})
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

void BM_Download(benchmark::State& state) {
  Bench bench;
  for (auto _ : state) {
    block_on(bench.client_runtime, download(bench.channel.get(), Deadline::after(bench.clock, 60s),
                                            static_cast<std::size_t>(state.range(0)), 32));
  }
  state.SetBytesProcessed(state.iterations() * 32 * state.range(0));
}
BENCHMARK(BM_Download)
    ->Arg(1 << 20)
    ->Arg(4 << 20)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

// --- What Asio alone does -----------------------------------------------------------------------

Task<> raw_serve(std::unique_ptr<Listener> listener, std::size_t in, std::size_t out) {
  auto stream = co_await listener->accept();
  Buffer request = Buffer::allocate(in);
  Buffer reply = Buffer::allocate(out);
  const Bytes pieces[] = {reply.bytes()};
  for (;;) {
    auto got = co_await (*stream)->read_exactly(request.writable());
    if (!got) co_return;
    auto sent = co_await (*stream)->write_all(pieces);
    if (!sent) co_return;
  }
}

Task<Result<std::unique_ptr<Stream>>> raw_connect(Runtime* runtime, Transport* transport,
                                                  std::string address) {
  return transport->connect(*runtime, std::move(address), Deadline::never());
}

Task<> raw_calls(Stream* stream, std::size_t out, std::size_t in, int count) {
  Buffer request = Buffer::allocate(out);
  Buffer reply = Buffer::allocate(in);
  const Bytes pieces[] = {request.bytes()};
  for (int i = 0; i < count; ++i) {
    auto sent = co_await stream->write_all(pieces);
    CHECK(sent.has_value(), "written");
    auto got = co_await stream->read_exactly(reply.writable());
    CHECK(got.has_value(), "read");
  }
}

void BM_RawAsio(benchmark::State& state) {
  SystemClock clock;
  Runtime server_runtime(clock, 1, "server");
  Runtime client_runtime(clock, 1, "client");
  TcpTransport transport;
  auto listener = *transport.listen(server_runtime, "127.0.0.1:0");
  const std::string address = listener->address();
  const auto out = static_cast<std::size_t>(state.range(0));
  const auto in = static_cast<std::size_t>(state.range(1));
  asio::co_spawn(server_runtime.make_strand(), raw_serve(std::move(listener), out, in), asio::detached);
  auto stream = *block_on(client_runtime, raw_connect(&client_runtime, &transport, address));
  const int count = out > 10000 || in > 10000 ? 32 : 2000;
  for (auto _ : state) block_on(client_runtime, raw_calls(stream.get(), out, in, count));
  state.SetItemsProcessed(state.iterations() * count);
  state.SetBytesProcessed(state.iterations() * count * (state.range(0) + state.range(1)));
  stream->close();
  client_runtime.stop();
  server_runtime.stop();
}
BENCHMARK(BM_RawAsio)
    ->Args({112, 112})
    ->Args({1 << 20, 112})
    ->Args({4 << 20, 112})
    ->Args({112, 4 << 20})
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace cairn::rpc

BENCHMARK_MAIN();
