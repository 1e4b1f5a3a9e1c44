#include "meta/cluster_records.h"

#include <gtest/gtest.h>

#include "meta/cluster_config.h"
#include "store/base/rng.h"

namespace cairn::meta {
namespace {

GroupRecord sample_group() {
  GroupRecord group;
  group.epoch = Epoch(7);
  group.members = {{TargetId(1), true, false, false, 5},
                   {TargetId(2), true, true, false, 6},
                   {TargetId(3), false, false, true, 7}};
  group.reconcile = true;
  group.away = {TargetId(4), TargetId(5)};
  group.removed = {{ServerId(9), 3, 8}};
  group.leaving = TargetId(1);
  group.loss_accepted = Epoch(2);
  return group;
}
ServerRecord sample_server() {
  return {ServerId(3), "host:1", {"rack=a", "host=b"}, true, true, 77, 12};
}

template <class Record>
void expect_round_trip_and_no_harm(const Record& record) {
  const std::string bytes = record.encode();
  auto back = Record::decode(bytes);
  ASSERT_TRUE(back.has_value()) << back.error().to_string();
  EXPECT_EQ(*back, record);
  for (std::size_t cut = 0; cut < bytes.size(); ++cut)
    EXPECT_FALSE(Record::decode(std::string_view(bytes).substr(0, cut)).has_value()) << cut;
  EXPECT_FALSE(Record::decode(bytes + "x").has_value());
  std::string newer = bytes;
  newer[0] = 9;
  EXPECT_EQ(Record::decode(newer).error().code(), Code::kVersionMismatch);
  SeededRng rng(1);
  for (int i = 0; i < 20'000;
       ++i) {  // damaged bytes decode to something or fail; they never do harm (run under ASan)
    std::string damaged = bytes;
    for (std::uint64_t n = 1 + rng.below(4); n > 0; --n)
      damaged[rng.below(damaged.size())] = static_cast<char>(rng.below(256));
    (void)Record::decode(damaged);
  }
}

TEST(ClusterRecords, RoundTripAndDamage) {
  expect_round_trip_and_no_harm(sample_server());
  expect_round_trip_and_no_harm(TargetRecord{TargetId(4), ServerId(3), 1 << 30, true, false});
  expect_round_trip_and_no_harm(PoolRecord{PoolId(1), 128, 3, 2, 4 << 20, "rack"});
  expect_round_trip_and_no_harm(sample_group());
  expect_round_trip_and_no_harm(PurgeRecord{DataId(5), PoolId(1), 9});
  expect_round_trip_and_no_harm(FenceRecord{SessionId(4)});
  expect_round_trip_and_no_harm(FenceFloorRecord{SessionId(4), 9});
}

TEST(ClusterRecords, ImpossibleGroupsAreCorrupt) {
  GroupRecord none = sample_group();
  for (GroupMember& member : none.members) member.in_sync = false;
  EXPECT_EQ(GroupRecord::decode(none.encode()).error().code(), Code::kCorrupt);
  GroupRecord twice = sample_group();
  twice.members[1].target = twice.members[0].target;
  EXPECT_EQ(GroupRecord::decode(twice.encode()).error().code(), Code::kCorrupt);
  GroupRecord order = sample_group();
  std::swap(order.members[1], order.members[2]);
  EXPECT_EQ(GroupRecord::decode(order.encode()).error().code(), Code::kCorrupt);
}

TEST(ClusterRecords, KeysSortAndRead) {
  EXPECT_LT(group_key({PoolId(1), 2}), group_key({PoolId(1), 300}));
  EXPECT_LT(purge_key(255), purge_key(256));
  EXPECT_EQ(*group_of_key(group_key({PoolId(3), 9})), (GroupId{PoolId(3), 9}));
  EXPECT_EQ(*number_of_key(purge_key(12)), 12u);
  EXPECT_EQ(group_of_key("\x43zz").error().code(), Code::kCorrupt);
  EXPECT_EQ(number_of_key("").error().code(), Code::kCorrupt);
}

TEST(ClusterConfig, ReadsPrintsAndChecks) {
  auto reader = ConfigReader::parse("[cluster]\nreplicas = 3\nrepair_grace_ms = 1000\n", "test");
  ASSERT_TRUE(reader.has_value());
  ClusterConfig config;
  read_cluster_config(*reader, config);
  ASSERT_TRUE(reader->finish().has_value());
  EXPECT_EQ(config.replicas, 3u);
  EXPECT_EQ(config.repair_grace.count(), 1000);
  EXPECT_TRUE(check_cluster_config(config).has_value());
  ConfigPrinter printer;
  print_cluster_config(config, printer);
  auto again = ConfigReader::parse(printer.take(), "printed");
  ASSERT_TRUE(again.has_value());
  ClusterConfig printed;
  read_cluster_config(*again, printed);
  EXPECT_TRUE(again->finish().has_value());
  EXPECT_EQ(printed.replicas, 3u);
  EXPECT_EQ(printed.repair_grace, config.repair_grace);
  config.slots = 100;
  EXPECT_EQ(check_cluster_config(config).error().code(), Code::kConfig);
  config.slots = 128;
  config.heartbeat = config.lease;
  EXPECT_EQ(check_cluster_config(config).error().code(), Code::kConfig);
}

}  // namespace
}  // namespace cairn::meta
