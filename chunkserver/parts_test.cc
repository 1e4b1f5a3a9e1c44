// The small parts: config, lease, fence, locks, quota, ledger, place in the chain, what is remembered.
#include <gtest/gtest.h>

#include <algorithm>
#include <future>

#include "chunkserver/chunk_locks.h"
#include "chunkserver/config.h"
#include "chunkserver/damage_log.h"
#include "chunkserver/group_config.h"
#include "chunkserver/group_memory.h"
#include "chunkserver/join_ledger.h"
#include "chunkserver/memory_engine.h"
#include "chunkserver/pacer.h"
#include "chunkserver/purged_ids.h"
#include "chunkserver/quota.h"
#include "chunkserver/server_lease.h"
#include "chunkserver/session_fence.h"
#include "chunkserver/sync_batch.h"

namespace cairn::chunkserver {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Config, RefusesUnknownKeysAndMissingDirs) {
  EXPECT_TRUE(ChunkserverConfig::parse("listen = \"127.0.0.1:0\"\ndata_dirs = [\"/d\"]", "c"));
  auto unknown =
      ChunkserverConfig::parse("listen = \"127.0.0.1:0\"\ndata_dirs = [\"/d\"]\nlisten_on = 1", "c");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message().find("listen_on"), std::string::npos);
  EXPECT_FALSE(ChunkserverConfig::parse("listen = \"127.0.0.1:0\"", "c"));
  EXPECT_FALSE(ChunkserverConfig::parse("listen = \"127.0.0.1:0\"\ndata_dirs = []", "c"));
  EXPECT_FALSE(ChunkserverConfig::parse("listen = \"127.0.0.1:0\"\ndata_dirs = [\"/d\", \"/d\"]", "c"));
  // Nobody can connect to 0.0.0.0.
  EXPECT_FALSE(ChunkserverConfig::parse("data_dirs = [\"/d\"]\nlisten = \"0.0.0.0:1\"", "c"));
}

TEST(Config, PrintedConfigIsAValidOne) {
  auto config = ChunkserverConfig::parse(
      "listen = \"127.0.0.1:7\"\ndata_dirs = [\"/a\", \"/b\"]\ncapacity_bytes = 5", "c");
  ASSERT_TRUE(config);
  auto again = ChunkserverConfig::parse(config->print(), "printed");
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->data_dirs, config->data_dirs);
  EXPECT_EQ(again->capacity_bytes, 5u);
}

TEST(ServerLease, EndsEarlyAndWhenTheConnectionBroke) {
  ManualClock clock;
  ServerLease lease(clock);
  EXPECT_FALSE(lease.valid());
  const TimePoint sent = clock.now();
  clock.advance(milliseconds(500));
  lease.answered(sent, seconds(10));
  clock.advance(milliseconds(8400));
  EXPECT_TRUE(lease.valid());
  clock.advance(milliseconds(200));  // 9.1 s after sending
  EXPECT_FALSE(lease.valid());

  lease.answered(clock.now(), seconds(10));
  lease.connection_broke();
  clock.advance(milliseconds(600));
  EXPECT_TRUE(lease.valid());
  lease.connection_broke();  // a failed attempt to reconnect does not start the second anew
  clock.advance(milliseconds(500));
  EXPECT_FALSE(lease.valid());
  lease.answered(clock.now(), seconds(10));
  EXPECT_TRUE(lease.valid());
  lease.end();
  EXPECT_FALSE(lease.valid());
}

struct OnRuntime : ::testing::Test {
  SystemClock clock;
  rpc::Runtime runtime{clock, 2, "test"};
  Deadline soon(int ms = 50) { return Deadline::after(clock, milliseconds(ms)); }
};

struct SessionFenceTest : OnRuntime {};

TEST_F(SessionFenceTest, RefusesEndedSessionsAndWaitsForTheirWrites) {
  SessionFence fence(runtime);
  auto use = fence.admit(SessionId(5));
  ASSERT_TRUE(use);
  fence.end({SessionId(5)}, SessionId(3));
  EXPECT_EQ(fence.admit(SessionId(5)).error().code(), Code::kSessionEnded);
  EXPECT_EQ(fence.admit(SessionId(2)).error().code(), Code::kSessionEnded);
  EXPECT_TRUE(fence.admit(SessionId(6)));
  EXPECT_FALSE(rpc::block_on(runtime, fence.drained(soon())));
  {
    SessionFence::Use hop = fence.hop(SessionId(5));  // a hop of it is still taken
    *use = SessionFence::Use();
    EXPECT_FALSE(rpc::block_on(runtime, fence.drained(soon())));
  }
  EXPECT_TRUE(rpc::block_on(runtime, fence.drained(soon())));

  SessionFence restored(runtime);
  auto sequence = restored.restore(fence.encode(42));
  ASSERT_TRUE(sequence);
  EXPECT_EQ(*sequence, 42u);
  EXPECT_TRUE(restored.ended(SessionId(5)));
  EXPECT_TRUE(restored.ended(SessionId(1)));
  EXPECT_FALSE(restored.ended(SessionId(4)));
  EXPECT_FALSE(restored.ended(SessionId(0)));
  EXPECT_FALSE(restored.restore("\x01xx"));
}

struct QuotaTest : OnRuntime {};

TEST_F(QuotaTest, FirstComeFirstServed) {
  Quota quota(runtime, 10);
  auto first = rpc::block_on(runtime, quota.take(7, soon()));
  ASSERT_TRUE(first);
  EXPECT_EQ(rpc::block_on(runtime, quota.take(5, soon())).error().code(), Code::kTimeout);
  auto small = rpc::block_on(runtime, quota.take(3, soon()));
  EXPECT_TRUE(small);
  *first = Quota::Grant();
  *small = Quota::Grant();
  EXPECT_TRUE(rpc::block_on(runtime, quota.take(1000, soon())));  // more than there is: all of it
}

struct ChunkLocksTest : OnRuntime {};

TEST_F(ChunkLocksTest, OneHolderAChunk) {
  ChunkLocks locks(runtime);
  const ChunkId a{DataId(1), 0, 0}, b{DataId(1), 1, 0};
  auto hold = rpc::block_on(runtime, locks.acquire(a, soon()));
  ASSERT_TRUE(hold);
  EXPECT_TRUE(rpc::block_on(runtime, locks.acquire(b, soon())));
  EXPECT_EQ(rpc::block_on(runtime, locks.acquire(a, soon())).error().code(), Code::kTimeout);
  std::promise<bool> got;
  rpc::asio::co_spawn(
      runtime.make_strand(), locks.acquire(a, soon(5000)),
      [&](std::exception_ptr, Result<ChunkLocks::Hold> result) { got.set_value(result.has_value()); });
  *hold = ChunkLocks::Hold();
  EXPECT_TRUE(got.get_future().get());
  EXPECT_TRUE(rpc::block_on(runtime, locks.acquire(a, soon())));
}

TEST(DamageLog, EachBlockIsNewsOnceAndLostOnesRest) {
  DamageLog log;
  const ChunkId a{DataId(1), 0, 0}, b{DataId(2), 0, 0};
  TimePoint now{};
  EXPECT_FALSE(log.any());
  EXPECT_TRUE(log.found(a, 3));
  EXPECT_FALSE(log.found(a, 3));
  EXPECT_TRUE(log.found(a, 4));
  EXPECT_TRUE(log.found(b, 3));
  EXPECT_TRUE(log.any());
  EXPECT_FALSE(log.first_resting(a, {}, now));
  EXPECT_TRUE(log.lost(a, 4, now));
  EXPECT_EQ(log.first_resting(a, {}, now), 4u);
  EXPECT_FALSE(log.first_resting(a, {0, 4}, now));
  EXPECT_FALSE(log.resting(a, 3, now));
  now = now + DamageLog::kRetryMin;
  EXPECT_FALSE(log.resting(a, 4, now));
  EXPECT_FALSE(log.lost(a, 4, now));  // not news
  EXPECT_TRUE(log.resting(a, 4, now + DamageLog::kRetryMin));
  for (int i = 0; i < 20; ++i) log.lost(a, 4, now);
  EXPECT_TRUE(log.resting(a, 4, now + DamageLog::kRetryMax - milliseconds(1)));
  EXPECT_FALSE(log.resting(a, 4, now + DamageLog::kRetryMax));
  log.whole(a, {4, 5});
  EXPECT_TRUE(log.found(a, 4));
  log.whole(a, {});
  log.whole(b, {3, 4});
  EXPECT_FALSE(log.any());
  for (std::uint64_t n = 0; n < 3 * DamageLog::kChunksMax; ++n) log.found({DataId(n), 0, 0}, 0);
}

TEST(JoinLedger, HoldsBehindTheCursorUnlessMissing) {
  std::vector<ChunkId> chunks;
  for (std::uint32_t i = 0; i < 10; ++i) chunks.push_back({DataId(9), i, 0});
  std::ranges::sort(chunks, {}, [](const ChunkId& c) { return HashOrder(c); });
  JoinLedger ledger;
  EXPECT_FALSE(ledger.holds(chunks[0]));
  ledger.held(chunks[7]);  // early: a write brought it
  ledger.missing(chunks[2], 100);
  ledger.walked_to(chunks[4]);
  EXPECT_TRUE(ledger.holds(chunks[1]));
  EXPECT_FALSE(ledger.holds(chunks[2]));
  EXPECT_FALSE(ledger.holds(chunks[5]));
  EXPECT_TRUE(ledger.holds(chunks[7]));
  EXPECT_FALSE(ledger.complete());
  ledger.walked_all();
  EXPECT_TRUE(ledger.holds(chunks[5]));
  EXPECT_EQ(ledger.bytes_left(), 100u);
  EXPECT_EQ(ledger.next(), chunks[2]);
  EXPECT_EQ(ledger.next(), std::nullopt);
  EXPECT_FALSE(ledger.complete());
  ledger.held(chunks[2]);
  EXPECT_TRUE(ledger.complete());
  EXPECT_EQ(ledger.bytes_left(), 0u);
  ledger.missing(chunks[7], 5);  // a hop for it failed: not complete any more
  EXPECT_FALSE(ledger.complete());
  EXPECT_EQ(ledger.next(), chunks[7]);
}

TEST(Place, ChainOrder) {
  GroupConfig config;
  config.members = {{TargetId(1), ServerId(1), true},
                    {TargetId(2), ServerId(2), true},
                    {TargetId(3), ServerId(3), false},
                    {TargetId(4), ServerId(4), false}};
  const Place head = place_of(config, TargetId(1));
  EXPECT_TRUE(head.head);
  EXPECT_EQ(head.successor->target, TargetId(2));
  EXPECT_FALSE(head.source);
  const Place tail = place_of(config, TargetId(2));
  EXPECT_EQ(tail.role, Role::kInSync);
  EXPECT_EQ(tail.successor->target, TargetId(3));  // the joiner hangs behind the tail
  EXPECT_EQ(tail.writable, 3u);
  const Place joiner = place_of(config, TargetId(3));
  EXPECT_EQ(joiner.role, Role::kJoiner);
  EXPECT_EQ(joiner.source->target, TargetId(2));
  EXPECT_FALSE(joiner.successor);
  EXPECT_EQ(place_of(config, TargetId(4)).role, Role::kOut);  // one joiner at a time
  EXPECT_EQ(place_of(config, TargetId(5)).role, Role::kOut);
}

TEST(GroupMemory, RemembersTheHighest) {
  auto disk = std::make_shared<MemoryDisk>(ClusterId(1), ServerId(1), TargetId(1));
  auto engine = open_memory_engine(disk);
  const GroupId group{PoolId(1), 3};
  {
    GroupMemory memory;
    ASSERT_TRUE(memory.restore(*engine));
    ASSERT_TRUE(memory.remember(*engine, {{group, {Epoch(5), Epoch(4)}}}));
    ASSERT_TRUE(memory.remember(*engine, {{group, {Epoch(3), Epoch(0)}}}));
    EXPECT_EQ(memory.before_start(group).epoch, Epoch(0));
  }
  GroupMemory memory;
  ASSERT_TRUE(memory.restore(*engine));
  EXPECT_EQ(memory.before_start(group), (GroupPast{Epoch(5), Epoch(4)}));
  ASSERT_TRUE(engine->set_value("groups", "garbage"));
  GroupMemory damaged;
  EXPECT_FALSE(damaged.restore(*engine));
}

TEST(PurgedIds, KeepsTheLatest) {
  PurgedIds ids;
  for (std::uint64_t i = 1; i <= PurgedIds::kMax + 10; ++i) ids.add(DataId(i));
  EXPECT_FALSE(ids.contains(DataId(10)));
  EXPECT_TRUE(ids.contains(DataId(11)));
  PurgedIds restored;
  auto sequence = restored.restore(ids.encode(9));
  ASSERT_TRUE(sequence);
  EXPECT_EQ(*sequence, 9u);
  EXPECT_TRUE(restored.contains(DataId(PurgedIds::kMax + 10)));
  EXPECT_FALSE(restored.restore("?"));
}

struct SyncBatchTest : OnRuntime {};

// It once counted as synced.
TEST_F(SyncBatchTest, WhatIsNotRunIsNotSynced) {
  rpc::MemoryTransport transport;
  rpc::Identity identity;
  rpc::TaskGroup tasks(runtime);
  Peers peers(runtime, transport, identity);
  SessionFence sessions(runtime);
  ServerLease lease(clock);
  lease.answered(clock.now(), seconds(100));
  Counters counters;
  PurgedIds purged;
  Pacer pacer;
  Quota quota(runtime, 100);
  GroupEnv env{runtime, tasks, peers, sessions, lease, counters, purged, pacer, quota, quota, quota, [] {}};
  Target target(open_memory_engine(std::make_shared<MemoryDisk>(ClusterId(1), ServerId(1), TargetId(1))),
                "/d", {});
  GroupMemory memory;
  const GroupId id{PoolId(1), 0};
  auto group = std::make_shared<Group>(id, target, memory, env, std::vector<ChunkId>());
  GroupConfig config;
  config.id = id;
  config.slots = 1;
  config.epoch = Epoch(1);
  config.members = {{TargetId(1), ServerId(1), true}};
  group->configure(config);
  GroupTable groups;
  groups.set_slots(id.pool, 1);
  groups.add(group);
  SyncItem item;
  item.chunk = ChunkId{DataId(1), 0, 0};
  item.pool = id.pool;
  item.epoch = config.epoch;
  auto sync = [&] {
    auto batch =
        std::make_shared<SyncBatch>(env, groups, std::vector<SyncItem>{item}, SessionId(1), soon(5000));
    return rpc::block_on(runtime, SyncBatch::run(batch)).at(0).code;
  };
  EXPECT_EQ(sync(), Code::kOk);
  tasks.close_blocking();
  EXPECT_EQ(sync(), Code::kUnavailable);
}

TEST(Pacer, SlowsOnlyWhenForegroundSuffers) {
  Pacer pacer;
  pacer.adjust({10, milliseconds(2)});
  EXPECT_EQ(pacer.pause_after(milliseconds(10), false).count(), 0);
  for (int i = 0; i < 20; ++i) pacer.adjust({10, milliseconds(100)});
  EXPECT_GT(pacer.pause_after(milliseconds(10), false), milliseconds(20));
  EXPECT_LE(pacer.pause_after(milliseconds(10), true),
            milliseconds(10));  // the last copy: at least half the disk
  pacer.adjust({0, Duration(0)});
  EXPECT_EQ(pacer.pause_after(milliseconds(10), false).count(), 0);
}

}  // namespace
}  // namespace cairn::chunkserver
