#include "meta/cluster_status.h"

#include <gtest/gtest.h>

#include "meta/cluster_testing.h"

namespace cairn::meta {
namespace {

constexpr std::uint64_t kCapacity = 1 << 30;

void fill_target(testing::StateBuilder& b, std::uint64_t n, std::uint64_t percent) {
  b.target(n).used_bytes = kCapacity / 100 * percent;
  b.target(n).available_bytes = kCapacity - b.target(n).used_bytes;
}

// The trash of all was emptied for the sake of one full disk, which it did not help.
TEST(ClusterSpace, IsScarceOnlyIfAllServersTogetherAreNearlyFull) {
  testing::StateBuilder b(3);
  EXPECT_FALSE(space_of(b.state, 90).near_full);
  fill_target(b, 1, 99);
  EXPECT_TRUE(space_of(b.state, 90).near_full);
  EXPECT_FALSE(space_of(b.state, 90).scarce);
  fill_target(b, 2, 95);
  fill_target(b, 3, 80);
  EXPECT_TRUE(space_of(b.state, 90).scarce);
  fill_target(b, 3, 50);
  EXPECT_FALSE(space_of(b.state, 90).scarce);
  fill_target(b, 1, 50);
  fill_target(b, 2, 50);
  b.kill(1);
  b.kill(2);
  EXPECT_FALSE(space_of(b.state, 90).scarce) << "the space of servers that are away comes back with them";
  b.kill(3);
  EXPECT_FALSE(space_of(b.state, 90).scarce);
}

}  // namespace
}  // namespace cairn::meta
