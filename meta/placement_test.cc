#include "meta/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace cairn::meta {
namespace {

struct Case {
  std::vector<PlacementTarget> targets;
  std::uint32_t slots = 128;
  std::uint32_t replicas = 2;
};

Case uniform(std::size_t count, std::uint32_t slots, std::uint32_t replicas) {
  Case c;
  c.slots = slots;
  c.replicas = replicas;
  for (std::uint64_t i = 1; i <= count; ++i)
    c.targets.push_back({TargetId(i), "server:" + std::to_string(i), 1, true});
  return c;
}

void expect_domains_kept(const PlacementMap& map, const std::vector<std::vector<TargetId>>& groups,
                         std::size_t copies) {
  for (const auto& members : groups) {
    ASSERT_EQ(members.size(), copies);
    std::set<std::string> domains;
    for (TargetId member : members) domains.insert(map.find(member)->domain);
    EXPECT_EQ(domains.size(), copies);
  }
}

TEST(Placement, UniformClustersAreEven) {
  for (std::size_t servers : {2, 3, 4, 5, 7, 10, 16})
    for (std::uint32_t replicas : {2u, 3u}) {
      if (servers < replicas) continue;
      for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        SeededRng rng(seed);
        Case c = uniform(servers, servers > 8 ? 1024 : 128, replicas);
        PlacementMap map(c.targets);
        const auto groups = lay_out_groups(map, c.slots, c.replicas, rng);
        expect_domains_kept(map, groups, replicas);
        std::uint32_t least = ~0u;
        std::uint32_t most = 0;
        for (const auto& target : c.targets) {
          least = std::min(least, map.groups(target.id));
          most = std::max(most, map.groups(target.id));
        }
        EXPECT_LE(most - least, 4u) << servers << " servers, seed " << seed;
        // A lost target's groups are shared by all others.
        std::map<std::pair<TargetId, TargetId>, std::uint32_t> pairs;
        std::map<TargetId, std::uint32_t> heads;
        for (const auto& members : groups) {
          ++heads[members.front()];
          for (TargetId a : members)
            for (TargetId b : members)
              if (a != b) ++pairs[{a, b}];
        }
        const double mean = static_cast<double>(c.slots) * replicas * (replicas - 1) /
                            static_cast<double>(servers * (servers - 1));
        for (const auto& a : c.targets) {
          EXPECT_NEAR(heads[a.id], c.slots / static_cast<double>(servers), 4);
          for (const auto& b : c.targets) {
            if (a.id == b.id) continue;
            EXPECT_NEAR((pairs[{a.id, b.id}]), mean, std::max(3.0, mean * 0.3))
                << servers << " servers, " << replicas << " replicas, seed " << seed;
          }
        }
      }
    }
}

TEST(Placement, FollowsCapacity) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SeededRng rng(seed);
    std::vector<PlacementTarget> targets;
    for (std::uint64_t i = 1; i <= 6; ++i)
      targets.push_back({TargetId(i), "s" + std::to_string(i), i <= 2 ? 4.0 : 2.0, true});
    PlacementMap map(targets);
    lay_out_groups(map, 512, 2, rng);
    for (std::uint64_t i = 1; i <= 6; ++i)
      EXPECT_NEAR(map.load(TargetId(i)), 1.0, 0.08) << "target " << i << " seed " << seed;
  }
}

TEST(Placement, DomainsAreKeptEvenWhenOneIsLarge) {
  SeededRng rng(3);
  std::vector<PlacementTarget> targets;  // rack a has six disks, b and c one each
  for (std::uint64_t i = 1; i <= 8; ++i)
    targets.push_back({TargetId(i), i <= 6 ? "rack=a" : "rack=" + std::to_string(i), 1, true});
  PlacementMap map(targets);
  EXPECT_EQ(map.domains(), 3u);
  const auto groups = lay_out_groups(map, 128, 3, rng);
  expect_domains_kept(map, groups, 3);
}

TEST(Placement, FewerDomainsThanReplicasGivesFewerCopies) {
  SeededRng rng(1);
  Case c = uniform(2, 16, 3);
  PlacementMap map(c.targets);
  expect_domains_kept(map, lay_out_groups(map, 16, 3, rng), 2);
}

TEST(Placement, ChooseSkipsBusyFullAndTakenDomains) {
  SeededRng rng(1);
  std::vector<PlacementTarget> targets = {{TargetId(1), "a", 1, true},
                                          {TargetId(2), "a", 1, true},
                                          {TargetId(3), "b", 1, false},
                                          {TargetId(4), "c", 1, true},
                                          {TargetId(5), "d", 1, true}};
  PlacementMap map(targets);
  EXPECT_EQ(map.choose({TargetId(1)}, {TargetId(4)}, rng), TargetId(5));
  EXPECT_EQ(map.choose({TargetId(1), TargetId(5)}, {TargetId(4)}, rng), std::nullopt);
}

TEST(Placement, SameSeedSameLayout) {
  SeededRng a(5);
  SeededRng b(5);
  Case c = uniform(5, 128, 3);
  PlacementMap first(c.targets);
  PlacementMap second(c.targets);
  EXPECT_EQ(lay_out_groups(first, 128, 3, a), lay_out_groups(second, 128, 3, b));
}

TEST(Placement, DomainsByLabel) {
  EXPECT_EQ(failure_domain_of("rack", TargetId(1), ServerId(2), {"host=x", "rack=a"}), "rack=a");
  EXPECT_EQ(failure_domain_of("server", TargetId(1), ServerId(2), {"rack=a"}), "server:0000000000000002");
  EXPECT_EQ(failure_domain_of("rack", TargetId(1), ServerId(2), {}), "server:0000000000000002");
  EXPECT_EQ(failure_domain_of("target", TargetId(1), ServerId(2), {}), "target:0000000000000001");
}

}  // namespace
}  // namespace cairn::meta
