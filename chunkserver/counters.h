// What a chunkserver counts about itself. Thread-safe; lives as long as the server.
#pragma once

#include <atomic>
#include <cstdint>

#include "store/base/clock.h"

namespace cairn::chunkserver {

struct Counters {
  std::atomic<std::uint64_t> corrupt_found{0};
  std::atomic<std::uint64_t> corrupt_repaired{0};
  std::atomic<std::uint64_t> replica_differs{
      0};                                // two members stored different bytes under one version: a bug
  std::atomic<std::uint64_t> writes{0};  // of clients, acknowledged
  std::atomic<std::uint64_t> write_bytes{0};
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> read_bytes{0};
  std::atomic<std::uint64_t> copied_chunks{0};
  std::atomic<std::uint64_t> copied_bytes{0};
};

// Mean latency of what clients asked, over the time since it was last taken: paces repair.
class LatencyMeter {
 public:
  void add(Duration took) {
    sum_ns_.fetch_add(static_cast<std::uint64_t>(took.count()), std::memory_order_relaxed);
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  struct Mean {
    std::uint64_t count = 0;
    Duration mean{0};
  };
  Mean take() {
    const std::uint64_t count = count_.exchange(0, std::memory_order_relaxed);
    const std::uint64_t sum = sum_ns_.exchange(0, std::memory_order_relaxed);
    return {count, count == 0 ? Duration(0) : Duration(static_cast<std::int64_t>(sum / count))};
  }

 private:
  std::atomic<std::uint64_t> sum_ns_{0};
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace cairn::chunkserver
