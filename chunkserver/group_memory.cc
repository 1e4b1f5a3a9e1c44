#include "chunkserver/group_memory.h"

#include <algorithm>

#include "store/base/bytes.h"

namespace cairn::chunkserver {
namespace {

// value = version u8 (1) | count u32 | count * (pool u16, slot u32, epoch u64, reconciled_at u64)
constexpr std::string_view kKey = "groups";
constexpr std::uint8_t kMemoryFormat = 1;

}  // namespace

Result<> GroupMemory::restore(disk::ChunkEngine& engine) {
  TRY(auto value, engine.get_value(kKey));
  if (!value) return {};
  ByteReader reader(*value);
  const std::uint8_t format = reader.u8();
  const std::uint32_t count = reader.u32();
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    GroupId group;
    group.pool = PoolId(reader.u16());
    group.slot = reader.u32();
    GroupPast past;
    past.epoch = Epoch(reader.u64());
    past.reconciled_at = Epoch(reader.u64());
    before_[group] = past;
  }
  if (format != kMemoryFormat || !reader.done())
    return fail(Code::kCorrupt, "what the target remembers of its groups does not decode");
  now_ = before_;
  return {};
}

GroupPast GroupMemory::before_start(const GroupId& group) const {
  auto at = before_.find(group);
  return at == before_.end() ? GroupPast() : at->second;
}

std::string GroupMemory::encode() const {
  std::string out;
  ByteWriter writer(out);
  writer.u8(kMemoryFormat);
  writer.u32(static_cast<std::uint32_t>(now_.size()));
  for (const auto& [group, past] : now_) {
    writer.u16(group.pool.value());
    writer.u32(group.slot);
    writer.u64(past.epoch.value());
    writer.u64(past.reconciled_at.value());
  }
  return out;
}

Result<> GroupMemory::remember(disk::ChunkEngine& engine, const std::vector<Entry>& entries) {
  std::lock_guard lock(mutex_);
  bool changed = false;
  for (const Entry& entry : entries) {
    GroupPast& past = now_[entry.group];
    const GroupPast next{std::max(past.epoch, entry.past.epoch),
                         std::max(past.reconciled_at, entry.past.reconciled_at)};
    changed = changed || next != past;
    past = next;
  }
  if (!changed) return {};
  return engine.set_value(kKey, encode());
}

}  // namespace cairn::chunkserver
