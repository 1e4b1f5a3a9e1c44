// Which parts of the extent files are in use: a buddy allocator of power-of-two size classes, 64 KiB to 64
// MiB.
//
// Memory only (4 KiB of bitmaps a GiB); rebuilt at open from the extents that the index refers to, so a crash
// leaks nothing. Addresses count 64 KiB units over all files; an extent is aligned to its size and so never
// straddles files.
//
// *Rooms*: a chunk that is written piece by piece would outgrow its extent and be copied again and again.
// Such an extent is placed at the start of a larger free block that stays set aside ("room") for it to grow
// into. A room is not accounted as used; the oldest are given up when there are many or when space runs
// short. Not thread-safe: the owner (ExtentStore) locks.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "store/base/result.h"

namespace cairn::disk {

constexpr std::uint64_t kUnitBytes = 64 << 10;
constexpr int kSizeClasses = 11;  // class c is kUnitBytes << c; the largest is 64 MiB
constexpr std::uint64_t class_bytes(int size_class) {
  return kUnitBytes << size_class;
}
// The smallest class that holds `bytes` (at most 64 MiB).
constexpr int class_for(std::uint64_t bytes) {
  int size_class = 0;
  while (class_bytes(size_class) < bytes) ++size_class;
  return size_class;
}

struct Extent {
  std::uint64_t unit = 0;  // address in units of kUnitBytes over all files
  std::uint8_t size_class = 0;
  std::uint64_t bytes() const { return class_bytes(size_class); }
  std::uint64_t units() const { return std::uint64_t{1} << size_class; }
  auto operator<=>(const Extent&) const = default;
};

class Allocator {
 public:
  // `file_bytes` is a multiple of 64 MiB (tests: of the largest class they use, at least 64 KiB).
  explicit Allocator(std::uint64_t file_bytes);

  // Declares what is in use, once, before anything else. kCorrupt: two extents overlap or one is misaligned.
  Result<> rebuild(std::vector<Extent> used);
  // An extent, preferring low addresses; nullopt when the existing files have none: call add_file() and
  // retry. `room_class` >= size_class asks for room to grow, on a best-effort basis.
  std::optional<Extent> allocate(int size_class, int room_class);
  // Grows in place if the neighbourhood is this extent's room or free. On success `extent` is the larger one.
  bool grow(Extent& extent, int size_class);
  // Gives back the end of an extent, down to `size_class`.
  void shrink(Extent& extent, int size_class);
  // The chunk is complete: what is left of its room serves others.
  void drop_room(const Extent& extent);
  void drop_all_rooms();
  void release(const Extent& extent);
  void add_file();

  std::uint32_t files() const { return static_cast<std::uint32_t>(files_.size()); }
  std::uint64_t units_per_file() const { return units_per_file_; }
  std::uint64_t used_bytes() const { return used_units_ * kUnitBytes; }
  bool is_free(const Extent& extent) const;  // for tests and checks

 private:
  struct FileMap {
    std::array<std::vector<std::uint64_t>, kSizeClasses>
        free;  // bit i of class c: block i of that size is free
    std::array<std::uint32_t, kSizeClasses> count{};
  };
  static constexpr std::size_t kRoomsMax = 64;

  bool take_bit(std::uint64_t unit, int size_class);  // if that very block is free
  void put_bit(std::uint64_t unit, int size_class);
  bool test_bit(std::uint64_t unit, int size_class) const;
  std::optional<std::uint64_t> take_first(int size_class);
  std::optional<std::uint64_t> take_block(int size_class);  // splitting a larger one if need be
  void give_block(std::uint64_t unit, int size_class);      // merging with free buddies
  void drop_oldest_room();
  void give_tail(std::uint64_t unit, int from_class, int to_class);

  const std::uint64_t units_per_file_;
  const int top_class_;
  std::vector<FileMap> files_;
  std::array<std::set<std::uint32_t>, kSizeClasses> files_with_free_;
  struct Room {
    int held = 0;  // class of the block set aside
    int used = 0;  // class of the extent at its start
    std::uint64_t order = 0;
  };
  std::map<std::uint64_t, Room> rooms_;  // by the extent's unit; at most kRoomsMax
  std::uint64_t rooms_made_ = 0;
  std::uint64_t used_units_ = 0;
};

}  // namespace cairn::disk
