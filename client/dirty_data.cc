#include "client/dirty_data.h"

#include <algorithm>
#include <cstring>

namespace cairn::client {
namespace {

constexpr std::uint32_t kSegmentMin = 4 << 10;
constexpr std::uint32_t kSegmentMax = 1 << 20;

}  // namespace

std::uint64_t ChunkBytes::write(std::uint32_t offset, Bytes data, std::uint32_t chunk_size, bool appends) {
  const std::uint64_t before = memory_;
  std::uint32_t at = offset;
  const auto end = static_cast<std::uint32_t>(offset + data.size());
  const auto take = [&](Segment& segment, std::uint32_t within, std::uint32_t n) {
    std::memcpy(segment.buffer.writable().data() + within, data.data() + (at - offset), n);
    at += n;
  };
  while (at < end) {
    auto next = segments_.upper_bound(at);
    const std::uint32_t limit = next == segments_.end() ? end : std::min(end, next->first);
    std::uint32_t grow_from = 0;
    if (next != segments_.begin()) {
      auto& [begin, segment] = *std::prev(next);
      const std::uint32_t within = at - begin;
      if (within < segment.size) {
        take(segment, within, std::min(end - at, segment.size - within));
        continue;
      }
      if (within == segment.size && segment.buffer.size() > segment.size) {
        const auto n = std::min<std::uint32_t>(
            limit - at, static_cast<std::uint32_t>(segment.buffer.size()) - segment.size);
        segment.size += n;
        take(segment, within, n);
        continue;
      }
      if (within == segment.size) grow_from = static_cast<std::uint32_t>(segment.buffer.size());
    }
    std::uint32_t capacity = limit - at;
    if (appends && limit == end && next == segments_.end()) {
      // Rounded so that blocks do not straddle segments, doubled so that a long append makes few of them.
      capacity = std::max({capacity, kSegmentMin, std::min(grow_from * 2, kSegmentMax)});
      const std::uint32_t edge = (at + capacity + kSegmentMin - 1) / kSegmentMin * kSegmentMin;
      capacity = std::min(edge, chunk_size) - at;
    }
    Segment fresh{rpc::Buffer::allocate(capacity), limit - at};
    memory_ += capacity;
    auto& placed = segments_.emplace(at, std::move(fresh)).first->second;
    take(placed, 0, placed.size);
  }
  return memory_ - before;
}

std::uint64_t ChunkBytes::cut(std::uint32_t size) {
  const std::uint64_t before = memory_;
  auto it = segments_.lower_bound(size);
  for (auto drop = it; drop != segments_.end(); ++drop) memory_ -= drop->second.buffer.size();
  segments_.erase(it, segments_.end());
  if (!segments_.empty()) {
    auto& [begin, last] = *segments_.rbegin();
    last.size = std::min(last.size, size - begin);
  }
  return before - memory_;
}

std::vector<ChunkBytes::Run> ChunkBytes::runs() const {
  std::vector<Run> out;
  for (const auto& [offset, segment] : segments_) {
    if (out.empty() || out.back().offset + out.back().size != offset) out.push_back({offset, {}, 0});
    out.back().payload.pieces.push_back(segment.buffer.slice(0, segment.size));
    out.back().size += segment.size;
  }
  return out;
}

std::uint64_t DirtyData::memory_needed(std::uint64_t bytes, bool appends) {
  return appends ? bytes + kSegmentMax + kSegmentMin : bytes;
}

std::uint64_t DirtyData::write(std::uint64_t offset, Bytes data, bool appends) {
  std::uint64_t taken = 0;
  while (!data.empty()) {
    const std::uint64_t index = offset / chunk_size_;
    const auto within = static_cast<std::uint32_t>(offset % chunk_size_);
    const std::size_t n = std::min<std::size_t>(data.size(), chunk_size_ - within);
    taken += active_[index].write(within, data.first(n), chunk_size_, appends);
    data = data.subspan(n);
    offset += n;
  }
  memory_ += taken;
  return taken;
}

void DirtyData::overlay(const ChunkBytes& bytes, std::uint64_t base, bool copy, std::vector<Part>& parts) {
  std::vector<Part> out;
  for (auto& part : parts) {
    if (!part.gap()) {
      out.push_back(std::move(part));
      continue;
    }
    std::uint64_t at = part.from;
    const auto& segments = bytes.segments();
    auto it = segments.upper_bound(
        at <= base ? 0 : static_cast<std::uint32_t>(std::min<std::uint64_t>(at - base, UINT32_MAX)));
    if (it != segments.begin()) --it;
    for (; it != segments.end() && at < part.to; ++it) {
      const std::uint64_t begin = base + it->first, end = begin + it->second.size;
      if (end <= at) continue;
      if (begin >= part.to) break;
      const std::uint64_t from = std::max(at, begin), to = std::min(part.to, end);
      if (from > at) out.push_back({at, from, {}});
      auto slice = it->second.buffer.slice(from - begin, to - from);
      out.push_back({from, to, copy ? rpc::Buffer::copy(slice.bytes()) : std::move(slice)});
      at = to;
    }
    if (at < part.to) out.push_back({at, part.to, {}});
  }
  parts = std::move(out);
}

std::vector<DirtyData::Part> DirtyData::parts(std::uint64_t from, std::uint64_t to) const {
  std::vector<Part> parts;
  if (from >= to) return parts;
  parts.push_back({from, to, {}});
  if (empty()) return parts;
  const std::uint64_t first = from / chunk_size_, last = (to - 1) / chunk_size_;
  for (auto it = active_.lower_bound(first); it != active_.end() && it->first <= last; ++it) {
    overlay(it->second, it->first * chunk_size_, true, parts);
  }
  for (auto it = flushing_.lower_bound(first); it != flushing_.end() && it->first <= last; ++it) {
    overlay(*it->second, it->first * chunk_size_, false, parts);
  }
  return parts;
}

std::vector<std::uint64_t> DirtyData::active_chunks() const {
  std::vector<std::uint64_t> out;
  for (const auto& [index, bytes] : active_) out.push_back(index);
  return out;
}

std::vector<std::uint64_t> DirtyData::flushing_chunks() const {
  std::vector<std::uint64_t> out;
  for (const auto& [index, bytes] : flushing_) out.push_back(index);
  return out;
}

std::uint64_t DirtyData::first_offset() const {
  std::uint64_t first = UINT64_MAX;
  if (!active_.empty()) first = active_.begin()->first * chunk_size_ + active_.begin()->second.begin();
  if (!flushing_.empty()) {
    first = std::min(first, flushing_.begin()->first * chunk_size_ + flushing_.begin()->second->begin());
  }
  return first;
}

std::shared_ptr<const ChunkBytes> DirtyData::start_flush(std::uint64_t index) {
  auto it = active_.find(index);
  CHECK(it != active_.end() && !flushing_.contains(index), "a chunk is flushed once at a time");
  auto frozen = std::make_shared<const ChunkBytes>(std::move(it->second));
  active_.erase(it);
  flushing_.emplace(index, frozen);
  return frozen;
}

std::uint64_t DirtyData::end_flush(std::uint64_t index) {
  auto it = flushing_.find(index);
  CHECK(it != flushing_.end(), "end of a flush that never began");
  const std::uint64_t memory = it->second->memory();
  flushing_.erase(it);
  memory_ -= memory;
  return memory;
}

std::uint64_t DirtyData::restore(std::uint64_t index, const ChunkBytes& lost) {
  const std::uint64_t base = index * chunk_size_;
  std::uint64_t taken = 0;
  for (const auto& [offset, segment] : lost.segments()) {
    std::vector<Part> gaps{{base + offset, base + offset + segment.size, {}}};
    if (auto it = active_.find(index); it != active_.end()) overlay(it->second, base, false, gaps);
    if (auto it = flushing_.find(index); it != flushing_.end()) overlay(*it->second, base, false, gaps);
    for (const auto& gap : gaps) {
      if (!gap.gap()) continue;
      const auto at = static_cast<std::uint32_t>(gap.from - base);
      taken += active_[index].write(at, segment.buffer.bytes().subspan(at - offset, gap.to - gap.from),
                                    chunk_size_, false);
    }
  }
  memory_ += taken;
  return taken;
}

std::map<std::uint64_t, ChunkBytes> DirtyData::copy_above(std::uint64_t size) const {
  std::map<std::uint64_t, ChunkBytes> out;
  const std::uint64_t index = chunk_size_ == 0 ? 0 : size / chunk_size_;
  for (auto it = active_.lower_bound(index); it != active_.end(); ++it) {
    const auto& segments = it->second.segments();
    const std::uint64_t base = it->first * chunk_size_;
    if (!segments.empty() && base + segments.rbegin()->first + segments.rbegin()->second.size > size)
      out.emplace(it->first, it->second);
  }
  return out;
}

std::uint64_t DirtyData::cut(std::uint64_t size) {
  std::uint64_t given = 0;
  const std::uint64_t index = chunk_size_ == 0 ? 0 : size / chunk_size_;
  for (auto it = active_.lower_bound(index); it != active_.end();) {
    const auto within = it->first == index ? static_cast<std::uint32_t>(size % chunk_size_) : 0;
    given += it->second.cut(within);
    it = it->second.empty() ? active_.erase(it) : std::next(it);
  }
  memory_ -= given;
  return given;
}

}  // namespace cairn::client
