// Chunks of former members: when a group does without them.
#include "meta/cluster_reclaim.h"

#include <gtest/gtest.h>

#include <map>

#include "meta/cluster_testing.h"

namespace cairn::meta {
namespace {

using testing::group_id;
using testing::server_id;
using testing::StateBuilder;
using testing::target_id;

class RowsTxn final : public Txn {
 public:
  Result<std::optional<std::string>> get(std::string_view) override { return std::nullopt; }
  void put(std::string_view key, std::string_view value) override { rows[std::string(key)] = value; }
  void erase(std::string_view) override {}
  Result<> scan(std::string_view, std::string_view,
                const std::function<bool(std::string_view, std::string_view)>&) override {
    return {};
  }
  std::int64_t wall_ns() const override { return 0; }
  std::uint64_t next_id() override { return 1; }
  Era era() const override { return Era(1); }
  void on_commit(std::function<void()> action) override { action(); }

  std::map<std::string, std::string> rows;
};

TEST(ClusterReclaim, OnlyAWholeGroupDoesWithoutATarget) {
  struct Situation {
    const char* members;
    bool expected;
    std::function<void(StateBuilder&)> happens = [](StateBuilder&) {};
  };
  const Situation situations[] = {
      {"1 2", true},
      {"1", false},
      {"1 2 4+", false},
      {"1 4+", false},
      {"1 3", false},     // a member
      {"1 2 3+", false},  // or about to be one
      {"1 2 4", true},    // more than needed
      {"1 2!", false},
      {"1 2", false, [](StateBuilder& b) { b.kill(2); }},
      {"1 2", false, [](StateBuilder& b) { b.restart(2); }},
      {"1 2", false, [](StateBuilder& b) { b.server(1).liveness = Liveness::kUnknown; }},
      {"1 2", false, [](StateBuilder& b) { b.target(2).condition = TargetCondition::kFailed; }},
      {"1 2", false, [](StateBuilder& b) { b.server(2).record.draining = true; }},
      {"1 2", true, [](StateBuilder& b) { b.server(3).record.draining = true; }},
      {"1 2 4", true, [](StateBuilder& b) { b.server(2).record.draining = true; }},
      {"1 2", false, [](StateBuilder& b) { b.group(0, "1 2").record.reconcile = true; }},
      {"1 2", false,
       [](StateBuilder& b) {
         b.group(0, "1 2").record.removed.push_back({server_id(4), 1, 9});
       }},
      {"1 2", false, [](StateBuilder& b) { b.group(0, "1 2").record.leaving = target_id(2); }},
  };
  for (const Situation& situation : situations) {
    StateBuilder builder(4);
    builder.group(0, situation.members);
    situation.happens(builder);
    EXPECT_EQ(does_without(builder.state, group_id(0), target_id(3)), situation.expected)
        << situation.members << ", situation " << (&situation - situations);
  }
  StateBuilder builder(4);
  EXPECT_FALSE(does_without(builder.state, group_id(0), target_id(3))) << "no such group";
}

TEST(ClusterReclaim, OrdersAreBoundedAndStrikeTheTargetOffTheFormerMembers) {
  StateBuilder builder(4);
  builder.group(0, "1 2").record.away = {target_id(4), target_id(3)};
  builder.group(1, "1 3");
  builder.group(2, "2 4");
  RowsTxn txn;
  const std::vector<LeftOver> reported = {
      {group_id(0), target_id(3)}, {group_id(0), target_id(4)},  // not its target
      {group_id(1), target_id(3)}, {group_id(9), target_id(3)},
      {group_id(2), target_id(3)}, {group_id(2), target_id(77)}};
  auto orders = order_drops(builder.state, txn, server_id(3), reported, 10);
  ASSERT_EQ(orders.size(), 2u);
  EXPECT_EQ(orders[0].group, group_id(0));
  EXPECT_EQ(orders[0].target, target_id(3));
  EXPECT_EQ(orders[0].epoch, Epoch(10));
  EXPECT_EQ(orders[1].group, group_id(2));
  ASSERT_EQ(txn.rows.size(), 1u);
  const auto stored = GroupRecord::decode(txn.rows.at(group_key(group_id(0))));
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->away, std::vector<TargetId>{target_id(4)});
  EXPECT_EQ(builder.state.groups.at(group_id(0)).record, *stored);
  EXPECT_EQ(order_drops(builder.state, txn, server_id(3), reported, 1).size(), 1u);
}

}  // namespace
}  // namespace cairn::meta
