// Micro-benchmarks of the chunk engine on a real directory: CAIRN_BENCH_DIR, default /tmp/cairn-engine-bench
// (made afresh).
//   ninja store_disk_bench && bin/store_disk_bench
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "store/base/log.h"
#include "store/base/rng.h"
#include "store/disk/chunk_engine.h"
#include "store/disk/disk.h"

namespace cairn::disk {
namespace {

constexpr PoolId kPool{1};
constexpr std::uint32_t kMiB = 1 << 20;
constexpr std::uint32_t kChunk = 4 * kMiB;

std::string random_bytes(std::size_t size) {
  SeededRng rng(size);
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    std::uint64_t word = rng.next();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

class EngineBench : public benchmark::Fixture {
 public:
  void SetUp(benchmark::State& state) override {
    if (state.thread_index() != 0) return;
    log_set_level(LogLevel::kWarn);
    const char* chosen = std::getenv("CAIRN_BENCH_DIR");
    dir_ = chosen != nullptr ? chosen : "/tmp/cairn-engine-bench";
    std::filesystem::remove_all(dir_);
    auto formatted = ChunkEngine::format(disk_, dir_, ClusterId(1), ServerId(1), Era(1));
    auto opened = ChunkEngine::open(disk_, dir_, ClusterId(1), EngineOptions{});
    if (!formatted || !opened) state.SkipWithError("cannot open the engine");
    if (opened) engine_ = std::move(*opened);
  }
  void TearDown(benchmark::State& state) override {
    if (state.thread_index() != 0) return;
    state.counters["rss_MiB"] = resident_mib();
    engine_.reset();
    std::filesystem::remove_all(dir_);
  }
  static double resident_mib() {
    long pages = 0;
    if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
      if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
      std::fclose(file);
    }
    return static_cast<double>(pages) * 4096 / kMiB;
  }
  WriteOptions next(bool durable = false) {
    WriteOptions options;
    options.pool = kPool;
    options.version = {Epoch(1), ++version_};
    options.durable = durable;
    return options;
  }
  // `count` chunks of 4 MiB, synced.
  void fill(std::uint32_t count) {
    std::string data = random_bytes(kChunk);
    for (std::uint32_t i = 0; i < count; ++i)
      (void)engine_->put({DataId(1), i, 0}, as_bytes(data), {}, ChunkEngine::PutMode::kReplaceLower, next());
    (void)engine_->sync();
  }

  PosixDisk disk_;
  std::string dir_;
  std::unique_ptr<ChunkEngine> engine_;
  std::atomic<std::uint64_t> version_{0};
  std::atomic<std::uint64_t> data_{100};
};

void check(benchmark::State& state, bool ok) {
  if (!ok) state.SkipWithError("the engine refused");
}

BENCHMARK_DEFINE_F(EngineBench, first_write_4k)(benchmark::State& state) {
  std::string data = random_bytes(4096);
  auto sums = block_checksums(as_bytes(data));
  for (auto _ : state)
    check(state, engine_->write({DataId(++data_), 0, 0}, 0, as_bytes(data), sums, next()).has_value());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_REGISTER_F(EngineBench, first_write_4k)->Threads(1)->Threads(4)->UseRealTime();

BENCHMARK_DEFINE_F(EngineBench, first_write_4k_synced)(benchmark::State& state) {
  std::string data = random_bytes(4096);
  auto sums = block_checksums(as_bytes(data));
  for (auto _ : state)
    check(state, engine_->write({DataId(++data_), 0, 0}, 0, as_bytes(data), sums, next(true)).has_value());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_REGISTER_F(EngineBench, first_write_4k_synced)->Threads(1)->Threads(8)->UseRealTime();

BENCHMARK_DEFINE_F(EngineBench, append_1m)(benchmark::State& state) {
  std::string data = random_bytes(kMiB);
  auto sums = block_checksums(as_bytes(data));
  std::uint64_t i = 0;
  for (auto _ : state) {
    ChunkId chunk{DataId(1), static_cast<std::uint32_t>(i / 4 % 128), 0};  // half a GiB, then anew
    if (i % 4 == 0) check(state, engine_->purge(kPool, chunk).has_value());
    check(state, engine_->write(chunk, static_cast<std::uint32_t>(i % 4) * kMiB, as_bytes(data), sums, next())
                     .has_value());
    ++i;
  }
  state.SetBytesProcessed(state.iterations() * kMiB);
}
BENCHMARK_REGISTER_F(EngineBench, append_1m)->UseRealTime();

BENCHMARK_DEFINE_F(EngineBench, overwrite_4k_synced)(benchmark::State& state) {
  if (state.thread_index() == 0) fill(32);
  std::string data = random_bytes(4096);
  SeededRng rng(7);
  for (auto _ : state) {
    ChunkId chunk{DataId(1), static_cast<std::uint32_t>(rng.below(32)), 0};
    check(state, engine_
                     ->write(chunk, static_cast<std::uint32_t>(rng.below(1024)) * 4096, as_bytes(data), {},
                             next(true))
                     .has_value());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_REGISTER_F(EngineBench, overwrite_4k_synced)->UseRealTime();

BENCHMARK_DEFINE_F(EngineBench, read_4k)(benchmark::State& state) {
  fill(32);
  SeededRng rng(7);
  for (auto _ : state) {
    ChunkId chunk{DataId(1), static_cast<std::uint32_t>(rng.below(32)), 0};
    check(state,
          engine_->read(kPool, chunk, static_cast<std::uint32_t>(rng.below(1024)) * 4096, 4096).has_value());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_REGISTER_F(EngineBench, read_4k)->UseRealTime();

BENCHMARK_DEFINE_F(EngineBench, read_1m)(benchmark::State& state) {
  fill(32);
  std::uint32_t i = 0;
  for (auto _ : state) {
    check(state, engine_->read(kPool, {DataId(1), i / 4 % 32, 0}, i % 4 * kMiB, kMiB).has_value());
    ++i;
  }
  state.SetBytesProcessed(state.iterations() * kMiB);
}
BENCHMARK_REGISTER_F(EngineBench, read_1m)->UseRealTime();

// Opening after 100,000 small chunks: the index scan, and what the engine keeps in memory.
BENCHMARK_DEFINE_F(EngineBench, open_100k)(benchmark::State& state) {
  std::string data = random_bytes(4096);
  auto sums = block_checksums(as_bytes(data));
  for (int i = 0; i < 100'000; ++i)
    check(state, engine_->write({DataId(++data_), 0, 0}, 0, as_bytes(data), sums, next()).has_value());
  for (auto _ : state) {
    engine_.reset();
    auto opened = ChunkEngine::open(disk_, dir_, ClusterId(1), EngineOptions{});
    check(state, opened.has_value());
    engine_ = std::move(*opened);
  }
}
BENCHMARK_REGISTER_F(EngineBench, open_100k)->UseRealTime()->Iterations(3)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace cairn::disk

BENCHMARK_MAIN();
