#include "chunkserver/join_ledger.h"

namespace cairn::chunkserver {

bool JoinLedger::holds(const ChunkId& chunk) const {
  if (missing_.contains(chunk)) return false;
  if (all_ || early_.contains(chunk)) return true;
  return cursor_ && HashOrder(chunk) <= *cursor_;
}

void JoinLedger::held(const ChunkId& chunk) {
  auto at = missing_.find(chunk);
  if (at != missing_.end()) {
    bytes_left_ -= at->second;
    missing_.erase(at);
  }
  if (!all_ && !(cursor_ && HashOrder(chunk) <= *cursor_)) early_.insert(chunk);
}

void JoinLedger::missing(const ChunkId& chunk, std::uint64_t bytes) {
  early_.erase(chunk);
  if (!missing_.try_emplace(chunk, bytes).second) return;
  bytes_left_ += bytes;
  queue_.push_back(chunk);
}

void JoinLedger::walked_all() {
  all_ = true;
  early_.clear();
}

std::optional<ChunkId> JoinLedger::next() {
  while (!queue_.empty()) {
    const ChunkId chunk = queue_.front();
    queue_.pop_front();
    if (missing_.contains(chunk)) return chunk;
  }
  return std::nullopt;
}

}  // namespace cairn::chunkserver
