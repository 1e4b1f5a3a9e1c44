#include "chunkserver/damage_log.h"

#include <algorithm>

namespace cairn::chunkserver {

bool DamageLog::found(const ChunkId& chunk, std::uint32_t block) {
  std::lock_guard lock(mutex_);
  if (chunks_.size() >= kChunksMax && !chunks_.contains(chunk)) chunks_.erase(chunks_.begin());
  any_.store(true, std::memory_order_release);
  return chunks_[chunk].try_emplace(block).second;
}

void DamageLog::whole(const ChunkId& chunk, BlockRange range) {
  std::lock_guard lock(mutex_);
  auto at = chunks_.find(chunk);
  if (at == chunks_.end()) return;
  Blocks& blocks = at->second;
  blocks.erase(blocks.lower_bound(range.first), blocks.lower_bound(range.end));
  if (blocks.empty()) chunks_.erase(at);
  any_.store(!chunks_.empty(), std::memory_order_release);
}

bool DamageLog::lost(const ChunkId& chunk, std::uint32_t block, TimePoint now) {
  std::lock_guard lock(mutex_);
  auto at = chunks_.find(chunk);
  if (at == chunks_.end()) return true;
  Block& known = at->second[block];
  const bool news = known.pause.count() == 0;
  known.pause = news ? kRetryMin : std::min(2 * known.pause, kRetryMax);
  known.retry = now + known.pause;
  return news;
}

bool DamageLog::resting(const ChunkId& chunk, std::uint32_t block, TimePoint now) const {
  return first_resting(chunk, {block, block + 1}, now).has_value();
}

std::optional<std::uint32_t> DamageLog::first_resting(const ChunkId& chunk, BlockRange range,
                                                      TimePoint now) const {
  std::lock_guard lock(mutex_);
  auto at = chunks_.find(chunk);
  if (at == chunks_.end()) return std::nullopt;
  for (auto block = at->second.lower_bound(range.first);
       block != at->second.end() && block->first < range.end; ++block)
    if (block->second.pause.count() > 0 && now < block->second.retry) return block->first;
  return std::nullopt;
}

}  // namespace cairn::chunkserver
