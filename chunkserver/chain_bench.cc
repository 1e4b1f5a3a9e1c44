// How fast is a chain? Two chunkservers on the real engine over loopback TCP in one process, a fake metadata
// server.
//   chain_bench DIR    prints latency of small writes, throughput of large ones, and of bringing a member in
//   sync
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "chunkserver/bootstrap.h"
#include "chunkserver/test_cluster.h"
#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::size_t kMiB = 1 << 20;

class Bench {
 public:
  explicit Bench(const std::string& dir) : dir_(dir) {
    log_set_level(LogLevel::kWarn);
    CHECK(meta_.listen(transport_, "127.0.0.1:7960").has_value(), "fake meta");
    for (int i = 0; i < 2; ++i) servers_.push_back(start(i));
    const auto targets = std::vector<TargetId>{target(0), target(1)};
    for (std::uint32_t slot = 0; slot < kSlots; ++slot) meta_.set_group(slot, targets);
    CHECK(eventually([&] { return meta_.whole(2); }), "cluster");
  }
  ~Bench() {
    servers_.clear();
    meta_.stop();
    runtime_.stop();
  }

  void small_writes(std::size_t size, bool durable, int count) {
    std::vector<double> micros;
    const std::string bytes = pattern(size, 1);
    for (int i = 0; i < count; ++i) {
      WriteSpec spec =
          client_.spec({DataId(durable ? 5001 : 5000 + size), static_cast<std::uint32_t>(i % 64), 0});
      spec.offset = static_cast<std::uint32_t>(static_cast<std::size_t>(i / 64) * size);
      spec.durable = durable;
      const auto began = std::chrono::steady_clock::now();
      auto written = client_.write(spec, bytes);
      CHECK(written.has_value(), written ? "" : written.error().to_string());
      micros.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count());
    }
    std::ranges::sort(micros);
    fmt::print("write {:>7} B {:<8} p50 {:.0f} us  p99 {:.0f} us\n", size, durable ? "durable" : "buffered",
               micros[micros.size() / 2], micros[micros.size() * 99 / 100]);
  }

  void large_writes(std::size_t total) {
    const std::string bytes = pattern(kMiB, 2);
    const auto began = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    constexpr std::size_t kThreads = 8;
    for (std::size_t t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (std::size_t n = t; n * 4 * kMiB < total; n += kThreads)
          for (std::uint32_t piece = 0; piece < 4; ++piece) {
            WriteSpec spec = client_.spec({DataId(9), static_cast<std::uint32_t>(n), 0});
            spec.offset = piece * kMiB;
            if (piece == 0) spec.kind = WriteKind::kFresh;
            auto written = client_.write(spec, bytes);
            CHECK(written.has_value(), written ? "" : written.error().to_string());
          }
      });
    for (auto& thread : threads) thread.join();
    report("write 1 MiB pieces, 2 copies", total, began);
  }

  void resync() {
    servers_[1].reset();
    meta_.server_died(server_id(1));
    std::filesystem::remove_all(path(1));
    const auto began = std::chrono::steady_clock::now();
    servers_[1] = start(1);
    meta_.replace(target(1));
    CHECK(eventually([&] { return meta_.whole(2); }), "resync");
    report("bring an empty member in sync", servers_[1]->counters().copied_bytes.load(), began);
  }

 private:
  static constexpr std::uint32_t kSlots = 8;

  std::string path(int i) const { return dir_ + "/disk" + std::to_string(i); }
  static ServerId server_id(int i) { return ServerId(static_cast<std::uint64_t>(10 + i)); }
  TargetId target(int i) const { return meta_.target_of(server_id(i)); }

  std::unique_ptr<Chunkserver> start(int i) {
    std::filesystem::create_directories(path(i));
    auto made = disk::ChunkEngine::format(disk_, path(i), ClusterId(7), server_id(i), Era(1));
    CHECK(made.has_value(), made ? "" : made.error().to_string());
    meta_.add_server(server_id(i), made->target);
    ChunkserverConfig config;
    config.listen = "127.0.0.1:" + std::to_string(7961 + i);
    config.meta = {"127.0.0.1:7960"};
    disk::EngineOptions options;
    auto engine = disk::ChunkEngine::open(disk_, path(i), ClusterId(7), options);
    CHECK(engine.has_value(), engine ? "" : engine.error().to_string());
    std::vector<OpenedTarget> targets;
    targets.push_back({path(i), std::move(*engine)});
    auto server =
        Chunkserver::start(runtime_, transport_, rng_, config, std::move(targets), [](const Error&) {});
    CHECK(server.has_value(), server ? "" : server.error().to_string());
    return std::move(*server);
  }
  static void report(const char* what, std::uint64_t bytes, std::chrono::steady_clock::time_point began) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    fmt::print("{}: {} MiB in {:.2f} s, {:.0f} MB/s\n", what, bytes / kMiB, seconds,
               static_cast<double>(bytes) / 1e6 / seconds);
  }

  const std::string dir_;
  SystemClock clock_;
  SystemRng rng_;
  disk::PosixDisk disk_;
  rpc::TcpTransport transport_;
  rpc::Runtime runtime_{clock_, 2, "bench"};
  FakeMeta meta_{runtime_, ClusterId(7), kSlots, 1};
  std::vector<std::unique_ptr<Chunkserver>> servers_;
  TestClient client_{runtime_, transport_, meta_, SessionId(1), kSlots};
};

}  // namespace
}  // namespace cairn::chunkserver

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: chain_bench EMPTY_DIRECTORY\n");
    return 2;
  }
  cairn::chunkserver::Bench bench(argv[1]);
  bench.small_writes(4096, false, 4000);
  bench.small_writes(4096, true, 200);
  bench.small_writes(65536, false, 1000);
  bench.large_writes(1024ULL << 20);
  bench.resync();
  return 0;
}
