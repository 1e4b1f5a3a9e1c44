#include "chunkserver/purged_ids.h"

#include <algorithm>
#include <vector>

#include "store/base/bytes.h"

namespace cairn::chunkserver {
namespace {
constexpr std::uint8_t kPurgedFormat = 1;
}

void PurgedIds::add(DataId data) {
  std::lock_guard lock(mutex_);
  if (!ids_.insert(data).second) return;
  order_.push_back(data);
  if (order_.size() <= kMax) return;
  ids_.erase(order_.front());
  order_.pop_front();
}

bool PurgedIds::contains(DataId data) const {
  std::lock_guard lock(mutex_);
  return ids_.contains(data);
}

bool PurgedIds::full() const {
  std::lock_guard lock(mutex_);
  return order_.size() >= kMax;
}

std::string PurgedIds::encode(std::uint64_t sequence) const {
  std::lock_guard lock(mutex_);
  std::string out;
  ByteWriter writer(out);
  writer.u8(kPurgedFormat);
  writer.u64(sequence);
  const std::size_t count = std::min(order_.size(), kKept);
  writer.u32(static_cast<std::uint32_t>(count));
  for (auto data = order_.end() - static_cast<std::ptrdiff_t>(count); data != order_.end(); ++data)
    writer.u64(data->value());
  return out;
}

Result<std::uint64_t> PurgedIds::restore(std::string_view bytes) {
  ByteReader reader(bytes);
  const std::uint8_t format = reader.u8();
  const std::uint64_t sequence = reader.u64();
  const std::uint32_t count = reader.u32();
  std::vector<DataId> ids;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) ids.emplace_back(reader.u64());
  if (format != kPurgedFormat || !reader.done())
    return fail(Code::kCorrupt, "the list of purged data ids does not decode");
  for (DataId data : ids) add(data);
  return sequence;
}

}  // namespace cairn::chunkserver
