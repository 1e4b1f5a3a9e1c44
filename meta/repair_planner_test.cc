#include "meta/repair_planner.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "meta/cluster_testing.h"

namespace cairn::meta {
namespace {

using namespace std::chrono_literals;
using testing::group_id;
using testing::members_text;
using testing::StateBuilder;
using testing::target_id;

constexpr TimePoint kNow{1'000'000'000'000};

// Plans group 0 and returns its members afterwards; "-" for no change.
std::string planned(const StateBuilder& b, TimePoint now = kNow, PlannerOptions options = {}) {
  options.rebalance = false;
  SeededRng rng(1);
  for (const GroupChange& change : plan_repair(b.state, options, now, rng))
    if (change.group == group_id(0))
      return members_text(change.next) + (change.next.reconcile ? " reconcile" : "");
  return "-";
}

struct Scenario {
  std::string name;
  std::string members;
  std::function<void(StateBuilder&)> happens;
  std::string expected;
  std::size_t servers = 3;
  std::uint8_t replicas = 2;
  std::uint8_t min_replicas = 2;
};

TEST(RepairPlanner, Scenarios) {
  const auto nothing = [](StateBuilder&) {};
  const auto away = [](StateBuilder& b, std::uint64_t n) {
    b.state.groups.at(group_id(0)).record.away = {target_id(n)};
  };
  const std::vector<Scenario> scenarios = {
      {"whole: nothing to do", "1 2", nothing, "-"},
      {"one dead below the minimum: replaced at once", "1 2", [](auto& b) { b.kill(2, kNow); }, "1 3+"},
      {"head dead: the next is head", "1 2", [](auto& b) { b.kill(1, kNow); }, "2 3+"},
      {"at the minimum: waits for the grace time", "1 2 3", [](auto& b) { b.kill(2, kNow); }, "1 3", 4, 3},
      {"at the minimum, grace over", "1 2 3", [](auto& b) { b.kill(2, kNow - 61s); }, "1 3 4+", 4, 3},
      {"restarted while another serves: becomes a joiner", "1 2", [](auto& b) { b.restart(1); }, "2 1+"},
      {"both restarted: reconcile", "1 2",
       [](auto& b) {
         b.restart(1);
         b.restart(2);
       },
       "1! 2! reconcile"},
      {"one restarted, the other down: reconcile waits", "1 2",
       [](auto& b) {
         b.restart(1);
         b.kill(2);
       },
       "1! 2 reconcile"},
      {"one restarted, the other not heard of yet: reconcile waits", "1 2",
       [](auto& b) {
         b.restart(1);
         b.server(2).liveness = Liveness::kUnknown;
       },
       "1! 2 reconcile"},
      {"all down: the group waits for them", "1 2",
       [](auto& b) {
         b.kill(1);
         b.kill(2);
       },
       "-"},
      {"last one down, an older copy is up: waits", "1",
       [&](auto& b) {
         b.kill(1);
         away(b, 2);
       },
       "-"},
      {"wiped disk: replaced at once even at the minimum", "1 2 3",
       [](auto& b) {
         b.target(2).record.lost = true;
         b.restart(2);
       },
       "1 3 4+", 4, 3},
      {"wiped disk of the last copy: stays recorded", "1", [](auto& b) { b.target(1).record.lost = true; },
       "-"},
      {"one down, one lost: the lost one is struck out", "1 2",
       [](auto& b) {
         b.kill(1);
         b.target(2).record.lost = true;
       },
       "1"},
      {"failed disk leaves at once", "1 2", [](auto& b) { b.target(1).condition = TargetCondition::kFailed; },
       "2 3+"},
      {"read-only disk: a joiner first", "1 2",
       [](auto& b) { b.target(1).condition = TargetCondition::kReadOnly; }, "1 2 3+"},
      {"read-only disk, enough others: leaves at once", "1 2 3",
       [](auto& b) { b.target(1).condition = TargetCondition::kReadOnly; }, "2 3 4+", 4, 3},
      {"full disk stays", "1 2", [](auto& b) { b.target(1).condition = TargetCondition::kFull; }, "-"},
      {"full disk gets no new group", "1", [](auto& b) { b.target(2).condition = TargetCondition::kFull; },
       "1 3+"},
      {"nobody to join", "1",
       [](auto& b) {
         b.kill(2);
         b.kill(3);
       },
       "-"},
      {"draining: joiner first", "1 2", [](auto& b) { b.server(1).record.draining = true; }, "1 2 3+"},
      {"draining: removed when the joiner caught up", "1 2 3+",
       [](auto& b) {
         b.server(1).record.draining = true;
         b.report(0, 3, ProgressState::kCaughtUp);
       },
       "2 3"},
      {"joiner caught up", "1 2+", [](auto& b) { b.report(0, 2, ProgressState::kCaughtUp); }, "1 2"},
      {"the tail reports for its joiner", "1 2+", [](auto& b) { b.report(0, 1, ProgressState::kCaughtUp); },
       "1 2"},
      {"caught up in another epoch does not count", "1 2+",
       [](auto& b) {
         b.report(0, 2, ProgressState::kCaughtUp);
         b.state.groups.at(group_id(0)).reports.at(target_id(2)).epoch = Epoch(9);
       },
       "-"},
      {"caught up, but the last member died meanwhile: not promoted", "1 2+",
       [](auto& b) {
         b.report(0, 2, ProgressState::kCaughtUp);
         b.kill(1);
       },
       "-"},
      {"joiner died: the next one", "1 2+", [](auto& b) { b.kill(2, kNow); }, "1 3+"},
      {"joiner restarted: again in a new epoch", "1 2+", [](auto& b) { b.restart(2); }, "1 2+"},
      {"former member returns before a replacement", "1", [&](auto& b) { away(b, 2); }, "1 2+"},
      {"former member returns in place of a replacement", "1 3+", [&](auto& b) { away(b, 2); }, "1 2+"},
      {"a replacement half done stays", "1 3+",
       [&](auto& b) {
         away(b, 2);
         b.report(0, 3, ProgressState::kCopying);
         b.state.groups.at(group_id(0)).reports.at(target_id(3)).bytes_copied = 9;
       },
       "-"},
      {"one copy too many goes", "1 2 3", nothing, "2 3"},
      {"a copy too many stays while another is not there", "1 2 3", [](auto& b) { b.kill(1); }, "2 3"},
      {"superfluous joiner is dropped", "1 2 3+", nothing, "1 2"},
      {"reconciled: the head alone is in sync, others join again", "1! 2!",
       [](auto& b) {
         b.state.groups.at(group_id(0)).record.reconcile = true;
         b.report(0, 1, ProgressState::kReconciled);
       },
       "1 2+"},
      {"reconciled reported by another member does not count", "1! 2!",
       [](auto& b) {
         b.state.groups.at(group_id(0)).record.reconcile = true;
         b.report(0, 2, ProgressState::kReconciled);
       },
       "-"},
      {"reconciling: one restarts once more", "1! 2!",
       [](auto& b) {
         b.state.groups.at(group_id(0)).record.reconcile = true;
         b.report(0, 1, ProgressState::kReconciled);
         b.restart(2);
       },
       "1! 2! reconcile"},
      {"reconciling: a member that never restarted comes back", "1! 2",
       [](auto& b) { b.state.groups.at(group_id(0)).record.reconcile = true; }, "2 1+"},
      {"reconciling: the absent one is lost for good", "1! 2",
       [](auto& b) {
         b.state.groups.at(group_id(0)).record.reconcile = true;
         b.target(2).record.lost = true;
       },
       "1! reconcile"},
      {"reconciling: grace not over", "1! 2",
       [](auto& b) {
         b.state.groups.at(group_id(0)).record.reconcile = true;
         b.state.groups.at(group_id(0)).reconcile_since = kNow - 29s;
         b.kill(2);
       },
       "-"},
      {"reconciling: grace over", "1! 2",
       [](auto& b) {
         b.state.groups.at(group_id(0)).record.reconcile = true;
         b.state.groups.at(group_id(0)).reconcile_since = kNow - 31s;
         b.kill(2);
       },
       "1! reconcile"},
      {"members not heard of since the start stay", "1 2",
       [](auto& b) { b.server(2).liveness = Liveness::kUnknown; }, "-"},
  };
  for (const Scenario& scenario : scenarios) {
    StateBuilder b(scenario.servers, scenario.replicas, scenario.min_replicas);
    b.group(0, scenario.members);
    scenario.happens(b);
    EXPECT_EQ(planned(b), scenario.expected) << scenario.name;
  }
}

TEST(RepairPlanner, CopiesPerTargetAreBounded) {
  StateBuilder b(3);
  for (std::uint32_t slot = 0; slot < 40; ++slot) b.group(slot, slot % 2 == 0 ? "1 2" : "2 3");
  b.kill(2, kNow);
  SeededRng rng(1);
  PlannerOptions options;
  options.joiners_per_target = 4;
  std::map<TargetId, int> in;
  for (const GroupChange& change : plan_repair(b.state, options, kNow, rng))
    for (const GroupMember& member : change.next.members) in[member.target] += !member.in_sync;
  EXPECT_EQ(in[target_id(1)], 4);
  EXPECT_EQ(in[target_id(3)], 4);
}

TEST(RepairPlanner, FewestCopiesFirst) {
  StateBuilder b(5, 3);
  b.group(0, "1 2");
  b.group(1, "1");
  PlannerOptions options;
  options.joiners_per_target = 1;
  SeededRng rng(1);
  const auto changes = plan_repair(b.state, options, kNow, rng);
  ASSERT_FALSE(changes.empty());
  bool single_copied = false;
  for (const GroupChange& change : changes)
    if (change.group == group_id(1)) single_copied = change.next.members.size() == 2;
  EXPECT_TRUE(single_copied);
}

// A new server gets its share, one group at a time, and then it stops.
TEST(RepairPlanner, RebalanceConverges) {
  StateBuilder b(2);
  for (std::uint32_t slot = 0; slot < 30; ++slot) b.group(slot, slot % 2 == 0 ? "1 2" : "2 1");
  b.add_server(3);
  SeededRng rng(1);
  const PlannerOptions options;
  int steps = 0;
  for (; steps < 500; ++steps) {
    const auto changes = plan_repair(b.state, options, kNow, rng);
    bool copying = false;
    for (const auto& [id, group] : b.state.groups)
      copying = copying || group.record.members.size() > group.record.in_sync_count();
    if (changes.empty() && !copying) break;
    for (const GroupChange& change : changes) {
      auto& group = b.state.groups.at(change.group);
      const Epoch epoch(group.record.epoch.value() + 1);
      group.record = change.next;
      group.record.epoch = epoch;
      group.reports.clear();
      EXPECT_GE(group.record.in_sync_count(), 2u);
    }
    for (auto& [id, group] : b.state.groups)
      for (const GroupMember& member : group.record.members)
        if (!member.in_sync) b.report(id.slot, member.target.value() - 100, ProgressState::kCaughtUp);
  }
  EXPECT_LT(steps, 500);
  std::map<TargetId, int> groups;
  for (const auto& [id, group] : b.state.groups)
    for (const GroupMember& member : group.record.members) ++groups[member.target];
  for (int n = 1; n <= 3; ++n) EXPECT_NEAR(groups[target_id(static_cast<std::uint64_t>(n))], 20, 2);
}

}  // namespace
}  // namespace cairn::meta
