// Which blocks of a target are known to be damaged: so that each is counted and logged once, however often it
// is read, and so that a block without a good copy anywhere is not looked for at every read. Memory only:
// after a restart damage is found anew. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "store/base/clock.h"
#include "store/base/ids.h"

namespace cairn::chunkserver {

struct BlockRange {
  std::uint32_t first = 0;
  std::uint32_t end = UINT32_MAX;
};

class DamageLog {
 public:
  static constexpr Duration kRetryMin = std::chrono::seconds(1);
  static constexpr Duration kRetryMax = std::chrono::minutes(1);
  static constexpr std::size_t kChunksMax = 4096;  // one that no longer fits is counted again when read again

  bool any() const { return any_.load(std::memory_order_acquire); }
  // The block is damaged. True: that is news.
  bool found(const ChunkId& chunk, std::uint32_t block);
  // These blocks were read and are good, or were made so.
  void whole(const ChunkId& chunk, BlockRange range);

  // No member has a good copy: not to be looked for before a time that doubles with every call. True: that is
  // news.
  bool lost(const ChunkId& chunk, std::uint32_t block, TimePoint now);
  // Whether the block was lost lately, so that looking for it again would only make work.
  bool resting(const ChunkId& chunk, std::uint32_t block, TimePoint now) const;
  std::optional<std::uint32_t> first_resting(const ChunkId& chunk, BlockRange range, TimePoint now) const;

 private:
  struct Block {
    Duration pause{0};  // 0: not known to be lost
    TimePoint retry{};
  };
  using Blocks = std::map<std::uint32_t, Block>;

  mutable std::mutex mutex_;
  std::unordered_map<ChunkId, Blocks> chunks_;  // guarded by mutex_
  std::atomic<bool> any_{false};
};

}  // namespace cairn::chunkserver
