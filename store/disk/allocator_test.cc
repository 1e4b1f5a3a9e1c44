#include "store/disk/allocator.h"

#include <gtest/gtest.h>

#include <map>

#include "store/base/rng.h"

namespace cairn::disk {
namespace {

TEST(Allocator, classes) {
  EXPECT_EQ(class_for(1), 0);
  EXPECT_EQ(class_for(64 << 10), 0);
  EXPECT_EQ(class_for((64 << 10) + 1), 1);
  EXPECT_EQ(class_for(4 << 20), 6);
  EXPECT_EQ(class_for(64 << 20), 10);
}

TEST(Allocator, splits_and_merges) {
  Allocator allocator(64 << 20);
  EXPECT_FALSE(allocator.allocate(0, 0));
  allocator.add_file();
  Extent a = *allocator.allocate(0, 0);
  Extent b = *allocator.allocate(0, 0);
  Extent c = *allocator.allocate(6, 6);
  EXPECT_EQ(a.unit, 0u);
  EXPECT_EQ(b.unit, 1u);
  EXPECT_EQ(c.unit, 64u);
  EXPECT_EQ(allocator.used_bytes(), a.bytes() + b.bytes() + c.bytes());
  EXPECT_FALSE(allocator.allocate(10, 10)) << "the only 64 MiB block is split";
  allocator.release(a);
  allocator.release(c);
  allocator.release(b);
  EXPECT_EQ(allocator.used_bytes(), 0u);
  EXPECT_TRUE(allocator.allocate(10, 10)) << "all merged again";
}

TEST(Allocator, room_lets_an_extent_grow_in_place) {
  Allocator allocator(64 << 20);
  allocator.add_file();
  Extent a = *allocator.allocate(2, 6);
  Extent other = *allocator.allocate(2, 2);
  EXPECT_EQ(allocator.used_bytes(), a.bytes() + other.bytes()) << "a room is not used space";
  Extent before = a;
  EXPECT_TRUE(allocator.grow(a, 4));
  EXPECT_TRUE(allocator.grow(a, 6));
  EXPECT_EQ(a.unit, before.unit);
  EXPECT_EQ(allocator.used_bytes(), a.bytes() + other.bytes());
  allocator.release(a);
  allocator.release(other);
  EXPECT_TRUE(allocator.allocate(10, 10));
}

TEST(Allocator, rooms_give_way_when_space_is_short) {
  Allocator allocator(1 << 20);
  allocator.add_file();
  Extent a = *allocator.allocate(0, 4);
  EXPECT_TRUE(allocator.is_free({8, 3}) == false);
  Extent b = *allocator.allocate(3, 3);
  EXPECT_FALSE(allocator.grow(a, 4));
  EXPECT_TRUE(allocator.grow(a, 3)) << "its own half is still free";
  allocator.release(a);
  allocator.release(b);
  EXPECT_TRUE(allocator.allocate(4, 4));
}

TEST(Allocator, rebuild_finds_overlap_and_misplacement) {
  EXPECT_EQ(Allocator(1 << 20).rebuild({{0, 1}, {1, 0}}).error().code(), Code::kCorrupt);
  EXPECT_EQ(Allocator(1 << 20).rebuild({{1, 1}}).error().code(), Code::kCorrupt);
  EXPECT_EQ(Allocator(1 << 20).rebuild({{0, 9}}).error().code(), Code::kCorrupt);
}

// Random operations against a map of units; then a rebuild must see the same free space.
TEST(Allocator, random_against_model) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    SeededRng rng(seed);
    Allocator allocator(4 << 20);
    std::map<std::uint64_t, Extent> held;
    auto overlaps = [&](const Extent& e) {
      auto next = held.lower_bound(e.unit);
      if (next != held.end() && next->first < e.unit + e.units()) return true;
      return next != held.begin() && std::prev(next)->first + std::prev(next)->second.units() > e.unit;
    };
    for (int step = 0; step < 2000; ++step) {
      std::uint64_t what = rng.below(10);
      if (what < 5) {
        int size_class = static_cast<int>(rng.below(6));
        auto extent = allocator.allocate(size_class, size_class + static_cast<int>(rng.below(3)));
        if (!extent) {
          if (allocator.files() < 6) allocator.add_file();
          continue;
        }
        ASSERT_FALSE(overlaps(*extent));
        held[extent->unit] = *extent;
      } else if (!held.empty()) {
        auto it = held.begin();
        std::advance(it, static_cast<long>(rng.below(held.size())));
        if (what < 8) {
          allocator.release(it->second);
          held.erase(it);
        } else if (what < 9) {
          Extent grown = it->second;
          if (allocator.grow(grown, grown.size_class + 1 + static_cast<int>(rng.below(2)))) {
            held.erase(it);
            ASSERT_FALSE(overlaps(grown));
            held[grown.unit] = grown;
          }
        } else {
          allocator.drop_room(it->second);
        }
      }
      std::uint64_t used = 0;
      for (const auto& [unit, extent] : held) used += extent.bytes();
      ASSERT_EQ(allocator.used_bytes(), used);
    }
    allocator.drop_all_rooms();
    std::vector<Extent> used;
    for (const auto& [unit, extent] : held) used.push_back(extent);
    Allocator again(4 << 20);
    ASSERT_TRUE(again.rebuild(used));
    while (again.files() < allocator.files()) again.add_file();
    for (std::uint64_t unit = 0; unit < allocator.files() * allocator.units_per_file(); ++unit)
      ASSERT_EQ(allocator.is_free({unit, 0}), again.is_free({unit, 0})) << unit;
    for (const Extent& extent : used) allocator.release(extent);
    EXPECT_EQ(allocator.used_bytes(), 0u);
    for (std::uint32_t i = 0; i < allocator.files(); ++i) EXPECT_TRUE(allocator.allocate(6, 6));
  }
}

}  // namespace
}  // namespace cairn::disk
