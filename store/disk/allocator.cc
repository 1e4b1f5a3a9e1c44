#include "store/disk/allocator.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace cairn::disk {
namespace {

int top_class_of(std::uint64_t units_per_file) {
  int top = 0;
  while (top + 1 < kSizeClasses && units_per_file % (std::uint64_t{2} << top) == 0) ++top;
  return top;
}

}  // namespace

Allocator::Allocator(std::uint64_t file_bytes)
    : units_per_file_(file_bytes / kUnitBytes), top_class_(top_class_of(units_per_file_)) {
  CHECK(units_per_file_ > 0, "extent files hold at least one unit");
}

Result<> Allocator::rebuild(std::vector<Extent> used) {
  CHECK(files_.empty(), "rebuild comes first");
  std::sort(used.begin(), used.end());
  std::uint64_t end_before = 0;
  for (const Extent& extent : used) {
    if (extent.size_class > top_class_ || extent.unit % extent.units() != 0)
      return fail(Code::kCorrupt,
                  fmt::format("extent at unit {} class {} is misplaced", extent.unit, extent.size_class));
    if (extent.unit < end_before)
      return fail(Code::kCorrupt, fmt::format("two chunks claim the extent at unit {}", extent.unit));
    end_before = extent.unit + extent.units();
    used_units_ += extent.units();
  }
  std::uint64_t total = (end_before + units_per_file_ - 1) / units_per_file_ * units_per_file_;
  // Files start wholly in use; then each gap between extents is given back as aligned blocks.
  FileMap empty;
  for (int c = 0; c <= top_class_; ++c) empty.free[c].assign(((units_per_file_ >> c) + 63) / 64, 0);
  files_.assign(total / units_per_file_, empty);
  std::uint64_t at = 0;
  auto give_gap = [&](std::uint64_t until) {
    while (at < until) {
      int c = top_class_;
      while (at % (std::uint64_t{1} << c) != 0 || at + (std::uint64_t{1} << c) > until) --c;
      put_bit(at, c);
      at += std::uint64_t{1} << c;
    }
  };
  for (const Extent& extent : used) {
    give_gap(extent.unit);
    at = extent.unit + extent.units();
  }
  give_gap(total);
  return {};
}

void Allocator::add_file() {
  FileMap map;
  for (int c = 0; c <= top_class_; ++c) map.free[c].assign(((units_per_file_ >> c) + 63) / 64, 0);
  std::uint64_t begin = files_.size() * units_per_file_;
  files_.push_back(std::move(map));
  for (std::uint64_t unit = 0; unit < units_per_file_; unit += std::uint64_t{1} << top_class_)
    put_bit(begin + unit, top_class_);
}

bool Allocator::test_bit(std::uint64_t unit, int size_class) const {
  const FileMap& file = files_[unit / units_per_file_];
  std::uint64_t i = (unit % units_per_file_) >> size_class;
  return (file.free[size_class][i / 64] >> (i % 64)) & 1;
}

void Allocator::put_bit(std::uint64_t unit, int size_class) {
  std::uint32_t number = static_cast<std::uint32_t>(unit / units_per_file_);
  FileMap& file = files_[number];
  std::uint64_t i = (unit % units_per_file_) >> size_class;
  file.free[size_class][i / 64] |= std::uint64_t{1} << (i % 64);
  if (file.count[size_class]++ == 0) files_with_free_[size_class].insert(number);
}

bool Allocator::take_bit(std::uint64_t unit, int size_class) {
  if (!test_bit(unit, size_class)) return false;
  std::uint32_t number = static_cast<std::uint32_t>(unit / units_per_file_);
  FileMap& file = files_[number];
  std::uint64_t i = (unit % units_per_file_) >> size_class;
  file.free[size_class][i / 64] &= ~(std::uint64_t{1} << (i % 64));
  if (--file.count[size_class] == 0) files_with_free_[size_class].erase(number);
  return true;
}

std::optional<std::uint64_t> Allocator::take_first(int size_class) {
  if (files_with_free_[size_class].empty()) return std::nullopt;
  std::uint32_t number = *files_with_free_[size_class].begin();
  const std::vector<std::uint64_t>& words = files_[number].free[size_class];
  for (std::size_t w = 0; w < words.size(); ++w) {
    if (words[w] == 0) continue;
    std::uint64_t i = w * 64 + static_cast<std::uint64_t>(std::countr_zero(words[w]));
    std::uint64_t unit = number * units_per_file_ + (i << size_class);
    take_bit(unit, size_class);
    return unit;
  }
  check_failed("count", __FILE__, __LINE__, "allocator: count without a free block");
}

std::optional<std::uint64_t> Allocator::take_block(int size_class) {
  for (int c = size_class; c <= top_class_; ++c) {
    std::optional<std::uint64_t> unit = take_first(c);
    if (!unit) continue;
    give_tail(*unit, size_class, c);
    return unit;
  }
  return std::nullopt;
}

// Frees what a block of class `to_class` has beyond its first part of class `from_class`.
void Allocator::give_tail(std::uint64_t unit, int from_class, int to_class) {
  for (int c = from_class; c < to_class; ++c) give_block(unit + (std::uint64_t{1} << c), c);
}

void Allocator::give_block(std::uint64_t unit, int size_class) {
  CHECK(!test_bit(unit, size_class), "allocator: block freed twice");
  while (size_class < top_class_) {
    std::uint64_t buddy = unit ^ (std::uint64_t{1} << size_class);
    if (!take_bit(buddy, size_class)) break;
    unit = std::min(unit, buddy);
    ++size_class;
  }
  put_bit(unit, size_class);
}

std::optional<Extent> Allocator::allocate(int size_class, int room_class) {
  CHECK(size_class <= top_class_, "extent larger than the largest class");
  room_class = std::min(room_class, top_class_);
  std::optional<std::uint64_t> unit;
  if (room_class > size_class) unit = take_block(room_class);
  if (unit) {
    rooms_[*unit] = {room_class, size_class, rooms_made_++};
    if (rooms_.size() > kRoomsMax) drop_oldest_room();
  } else {
    unit = take_block(size_class);
    if (!unit && !rooms_.empty()) {
      drop_all_rooms();
      unit = take_block(size_class);
    }
  }
  if (!unit) return std::nullopt;
  Extent extent{*unit, static_cast<std::uint8_t>(size_class)};
  used_units_ += extent.units();
  return extent;
}

bool Allocator::grow(Extent& extent, int size_class) {
  if (size_class <= extent.size_class) return true;
  if (size_class > top_class_ || extent.unit % (std::uint64_t{1} << size_class) != 0) return false;
  auto room = rooms_.find(extent.unit);
  int held = room == rooms_.end() ? extent.size_class : room->second.held;
  // Beyond what is held, each next buddy must be wholly free.
  for (int c = held; c < size_class; ++c)
    if (!test_bit(extent.unit + (std::uint64_t{1} << c), c)) return false;
  for (int c = held; c < size_class; ++c) take_bit(extent.unit + (std::uint64_t{1} << c), c);
  used_units_ -= extent.units();
  extent.size_class = static_cast<std::uint8_t>(size_class);
  used_units_ += extent.units();
  if (room == rooms_.end()) return true;
  room->second.used = size_class;
  if (size_class >= room->second.held) rooms_.erase(room);
  return true;
}

void Allocator::shrink(Extent& extent, int size_class) {
  if (size_class >= extent.size_class) return;
  drop_room(extent);
  used_units_ -= extent.units();
  give_tail(extent.unit, size_class, extent.size_class);
  extent.size_class = static_cast<std::uint8_t>(size_class);
  used_units_ += extent.units();
}

void Allocator::drop_room(const Extent& extent) {
  auto found = rooms_.find(extent.unit);
  if (found == rooms_.end()) return;
  Room room = found->second;
  rooms_.erase(found);
  give_tail(extent.unit, room.used, room.held);
}

void Allocator::drop_oldest_room() {
  auto oldest = std::min_element(rooms_.begin(), rooms_.end(), [](const auto& a, const auto& b) {
    return a.second.order < b.second.order;
  });
  drop_room({oldest->first, 0});
}

void Allocator::drop_all_rooms() {
  while (!rooms_.empty()) drop_room({rooms_.begin()->first, 0});
}

void Allocator::release(const Extent& extent) {
  drop_room(extent);
  used_units_ -= extent.units();
  give_block(extent.unit, extent.size_class);
}

bool Allocator::is_free(const Extent& extent) const {
  if (extent.unit / units_per_file_ >= files_.size()) return false;
  for (int c = extent.size_class; c <= top_class_; ++c)
    if (test_bit(extent.unit & ~((std::uint64_t{1} << c) - 1), c)) return true;
  return false;
}

}  // namespace cairn::disk
