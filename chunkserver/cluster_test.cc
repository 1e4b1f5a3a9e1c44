// Chunkservers together: chains, epochs, catch-up, fences, repair. Each test is a scenario with a scripted
// cause.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "chunkserver/test_cluster.h"

namespace cairn::chunkserver {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr PoolId kPool = FakeMeta::kPool;

std::string after_zeros(std::size_t zeros, std::string_view text) {
  std::string out;
  out.resize(zeros);
  out.append(text);
  return out;
}

TEST(Cluster, WritesReachEveryMemberAndAreRead) {
  TestCluster cluster({.servers = 3, .replicas = 3});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const std::string big = pattern(300'000, 1);
  auto written = client->write(client->spec(chunk), big);
  ASSERT_TRUE(written) << written.error().to_string();
  EXPECT_EQ(written->length, big.size());
  WriteSpec partial = client->spec(chunk);
  partial.offset = 12'345;
  const std::string small = pattern(5'000, 2);
  auto second = client->write(partial, small);
  ASSERT_TRUE(second);
  EXPECT_GT(second->version, written->version);
  std::string expected = big;
  expected.replace(partial.offset, small.size(), small);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(cluster.disk(i)->content(kPool, chunk), expected);
    EXPECT_EQ(cluster.disk(i)->info(kPool, chunk)->version, second->version);
    EXPECT_EQ(cluster.disk(i)->info(kPool, chunk)->digest, second->digest);
    auto read = client->read_once(chunk, cluster.target(i), seconds(2), 10'000, 9'000);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ(*read, expected.substr(10'000, 9'000));
  }
  EXPECT_EQ(client->read(cluster.chunk_in(0, 1)).error().code(), Code::kNotFound);
  EXPECT_TRUE(client->sync(chunk, second->version));
  EXPECT_EQ(
      client->sync(chunk, Version{second->version.epoch, second->version.counter + 1}, milliseconds(100))
          .error()
          .code(),
      Code::kLostUnsynced);
}

TEST(Cluster, EveryKindOfWrite) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(1);
  EXPECT_EQ(client->write(client->spec(chunk, WriteKind::kTruncate), "").error().code(), Code::kNotFound);
  WriteSpec fresh = client->spec(chunk, WriteKind::kFresh);
  fresh.offset = 20'000;
  ASSERT_TRUE(client->write(fresh, "abc"));
  EXPECT_EQ(*client->read(chunk), after_zeros(20'000, "abc"));
  WriteSpec cut = client->spec(chunk, WriteKind::kTruncate);
  cut.length = 20'001;
  ASSERT_TRUE(client->write(cut, ""));
  EXPECT_EQ(*client->read(chunk), after_zeros(20'000, "a"));
  WriteSpec punch = client->spec(chunk, WriteKind::kPunch);
  punch.offset = 20'000;
  punch.length = 100;
  ASSERT_TRUE(client->write(punch, ""));
  EXPECT_EQ(*client->read(chunk), std::string(20'001, '\0'));
  ASSERT_TRUE(client->write(client->spec(chunk, WriteKind::kRemove), ""));
  EXPECT_EQ(client->read(chunk).error().code(), Code::kNotFound);
  ASSERT_TRUE(client->write(client->spec(chunk), "again"));
  EXPECT_EQ(*client->read(chunk), "again");

  const ChunkId object = cluster.chunk_in(1, 1);
  auto put = client->write(client->spec(object, WriteKind::kPut), "immutable");
  ASSERT_TRUE(put);
  auto same = client->write(client->spec(object, WriteKind::kPut), "immutable");
  ASSERT_TRUE(same);
  EXPECT_EQ(same->version, put->version);
  EXPECT_EQ(same->digest, put->digest);
  EXPECT_EQ(client->write(client->spec(object, WriteKind::kPut), "other").error().code(), Code::kExists);
  EXPECT_EQ(client->write(client->spec(object), "x").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(*client->read(object), "immutable");
  EXPECT_EQ(cluster.disk(0)->info(kPool, chunk)->digest, cluster.disk(1)->info(kPool, chunk)->digest);
}

// It once got a version, which no member could apply and none would give up.
TEST(Cluster, ARangePastTheLargestChunkIsRefusedAtOnce) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  ASSERT_TRUE(client->write(client->spec(chunk), "bytes"));
  for (WriteKind kind : {WriteKind::kTruncate, WriteKind::kPunch}) {
    WriteSpec past = client->spec(chunk, kind);
    past.length = rpc::kPayloadMax + 1;
    EXPECT_EQ(client->write(past, "").error().code(), Code::kInvalidArgument);
    past.offset = UINT32_MAX;
    past.length = UINT32_MAX;
    EXPECT_EQ(client->write(past, "").error().code(), Code::kInvalidArgument);
  }
  EXPECT_EQ(*client->read(chunk), "bytes");
  EXPECT_TRUE(client->write(client->spec(chunk), "more"));
}

TEST(Cluster, AWriteThatEveryEngineRefusesEnds) {
  TestCluster cluster({.servers = 3, .replicas = 3, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  ASSERT_TRUE(client->write(client->spec(chunk), "bytes"));
  for (std::size_t i = 0; i < 3; ++i) cluster.disk(i)->refuse(Code::kRange);
  EXPECT_EQ(client->write(client->spec(chunk), "more").error().code(), Code::kRange);
  for (std::size_t i = 0; i < 3; ++i) cluster.disk(i)->refuse(Code::kOk);
  EXPECT_EQ(*client->read(chunk), "bytes");
  EXPECT_TRUE(client->write(client->spec(chunk), "more"));
  cluster.meta().end_session(SessionId(500));
  EXPECT_TRUE(eventually([&] { return cluster.meta().fences_confirmed(cluster.id(0)) == 1; }));
}

TEST(Cluster, ARetryIsAnsweredNotRepeated) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const WriteSpec first = client->spec(chunk);
  auto written = client->write(first, "one");
  ASSERT_TRUE(written);
  auto retried = client->write(first, "one");
  ASSERT_TRUE(retried);
  EXPECT_EQ(retried->version, written->version);
  // Also by a head that knows of it only from its own disk.
  const std::size_t head = cluster.index_of(cluster.meta().group(0).members.front().target);
  cluster.crash(head);
  auto by_other = client->write(first, "one");
  ASSERT_TRUE(by_other) << by_other.error().to_string();
  EXPECT_EQ(by_other->version, written->version);
  auto next = client->write(client->spec(chunk), "two");
  ASSERT_TRUE(next);
  // A request that comes after a later one of its session must not undo it.
  EXPECT_EQ(client->write(first, "one").error().code(), Code::kStale);
  EXPECT_EQ(*client->read(chunk), "two");
}

TEST(Cluster, RefusesTheWrongEpochAndTheWrongMember) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const TargetId tail = cluster.meta().group(0).members.back().target;
  ASSERT_TRUE(client->write(client->spec(chunk), "all know the group"));
  EXPECT_EQ(client->write_once(client->spec(chunk), "x", seconds(1), tail).error().code(), Code::kNotServing);
  cluster.meta().keep_out(tail, true);
  cluster.meta().remove_member(0, tail);
  ASSERT_TRUE(
      eventually([&] { return client->write_once(client->spec(chunk), "x", seconds(1)).has_value(); }));
  // The removed member says that it cannot tell, not that there is nothing.
  EXPECT_EQ(client->read_once(chunk, tail, seconds(1)).error().code(), Code::kNotHere);
}

TEST(Cluster, AHeadThatDiesLosesNothing) {
  TestCluster cluster({.servers = 3, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  ASSERT_TRUE(client->write(client->spec(chunk), pattern(50'000, 1)));
  const std::size_t head = cluster.index_of(cluster.meta().group(0).members.front().target);
  cluster.crash(head);
  WriteSpec next = client->spec(chunk);
  next.offset = 100;
  auto written = client->write(next, "after");
  ASSERT_TRUE(written) << written.error().to_string();
  std::string expected = pattern(50'000, 1);
  expected.replace(100, 5, "after");
  EXPECT_EQ(*client->read(chunk), expected);
  cluster.start(head);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(cluster.disk(head)->content(kPool, chunk), expected);
  EXPECT_EQ(*client->read_once(chunk, cluster.target(head), seconds(2)), expected);
}

TEST(Cluster, APendingWriteIsSentToTheNewSuccessor) {
  // A -> B -> C; B's process dies while it holds a write of A: A sends it to C under the new epoch.
  TestCluster cluster({.servers = 3, .replicas = 3, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const auto members = cluster.meta().group(0).members;
  // The first write of an epoch is applied only behind the others: the head does not know yet how full they
  // are.
  ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0, 1)), "first"));
  cluster.transport().cut(
      cluster.address(cluster.index_of(members[2].target)));  // C is out of reach: the write hangs at B
  auto pending = std::async(std::launch::async,
                            [&] { return client->write_once(client->spec(chunk), "pending", seconds(15)); });
  const std::size_t b = cluster.index_of(members[1].target);
  ASSERT_TRUE(eventually([&] { return cluster.disk(b)->content(kPool, chunk) == "pending"; }));
  // Not committed: nobody may see it.
  EXPECT_EQ(client->read_once(chunk, members[0].target, seconds(1)).error().code(), Code::kBusyPending);
  cluster.crash(b);
  cluster.transport().heal(cluster.address(cluster.index_of(members[2].target)));
  auto written = pending.get();
  ASSERT_TRUE(written) << written.error().to_string();
  EXPECT_EQ(cluster.disk(cluster.index_of(members[2].target))->content(kPool, chunk), "pending");
  EXPECT_EQ(*client->read(chunk), "pending");
}

TEST(Cluster, AJoinerGetsEverythingWhileWritesGoOn) {
  TestCluster cluster({.servers = 3, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  const std::size_t away = cluster.index_of(cluster.meta().group(0).members.back().target);
  auto client = cluster.client(500);
  std::map<std::uint32_t, std::string> model;
  for (std::uint32_t i = 0; i < 40; ++i) {
    model[i] = pattern(20'000 + i * 1000, i);
    ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0, i)), model[i]));
  }
  cluster.crash(away);
  for (std::uint32_t i = 0; i < 10; ++i) {
    model[i] = pattern(30'000, 100 + i);
    ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0, i), WriteKind::kFresh), model[i]));
  }
  ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0, 39), WriteKind::kRemove), ""));
  cluster.start(away);
  SeededRng rng(3);
  for (int n = 0; n < 200; ++n) {
    const auto i = static_cast<std::uint32_t>(rng.below(39));
    WriteSpec spec = client->spec(cluster.chunk_in(0, i));
    spec.offset = static_cast<std::uint32_t>(rng.below(15'000));
    const std::string bytes = pattern(1 + rng.below(3000), static_cast<std::uint64_t>(n));
    ASSERT_TRUE(client->write(spec, bytes));
    model[i].replace(spec.offset, bytes.size(), bytes);
  }
  ASSERT_TRUE(cluster.wait_whole());
  for (const auto& member : cluster.meta().group(0).members) {
    const std::size_t at = cluster.index_of(member.target);
    for (std::uint32_t i = 0; i < 39; ++i)
      EXPECT_EQ(cluster.disk(at)->content(kPool, cluster.chunk_in(0, i)), model[i])
          << "chunk " << i << " on " << at;
    EXPECT_EQ(cluster.disk(at)->content(kPool, cluster.chunk_in(0, 39)), std::nullopt);
  }
}

TEST(Cluster, AJoinerWithAnUncommittedHigherVersionTakesTheChains) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  auto written = client->write(client->spec(chunk), "committed");
  ASSERT_TRUE(written);
  const auto members = cluster.meta().group(0).members;
  const std::size_t head = cluster.index_of(members[0].target);
  const std::size_t tail = cluster.index_of(members[1].target);
  cluster.crash(head);
  cluster.disk(head)->plant(kPool, chunk, {written->version.epoch, written->version.counter + 1},
                            "never committed");
  cluster.start(head);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(cluster.disk(head)->content(kPool, chunk), "committed");
  EXPECT_EQ(cluster.disk(head)->info(kPool, chunk)->version, cluster.disk(tail)->info(kPool, chunk)->version);
  EXPECT_GT(cluster.disk(tail)->info(kPool, chunk)->version,
            Version(written->version.epoch, written->version.counter + 1));
}

TEST(Cluster, AChunkThatOnlyTheJoinerKnowsIsKeptAside) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId known = cluster.chunk_in(0, 0), unknown = cluster.chunk_in(0, 1);
  ASSERT_TRUE(client->write(client->spec(known), "known"));
  const std::size_t i = cluster.index_of(cluster.meta().group(0).members[1].target);
  cluster.crash(i);
  cluster.disk(i)->plant(kPool, unknown, {Epoch(1), 5}, "left over");
  cluster.start(i);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(cluster.disk(i)->content(kPool, unknown), "left over");
  EXPECT_EQ(client->read_once(unknown, cluster.target(i), seconds(1)).error().code(), Code::kNotFound);
  EXPECT_TRUE(eventually([&] { return cluster.meta().unknown_chunks(cluster.id(i)) == 1; }));
  // Written for the first time it begins from nothing, here as on the others.
  WriteSpec spec = client->spec(unknown);
  spec.offset = 2;
  ASSERT_TRUE(client->write(spec, "x"));
  EXPECT_EQ(cluster.disk(i)->content(kPool, unknown), after_zeros(2, "x"));
  EXPECT_EQ(*client->read_once(unknown, cluster.target(i), seconds(1)), after_zeros(2, "x"));
}

TEST(Cluster, BelowTheMinimumWritesWaitAndAJoinerCounts) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1, .min_replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const std::string before = pattern(40'000, 1);
  ASSERT_TRUE(client->write(client->spec(chunk), before));
  const std::size_t i = cluster.index_of(cluster.meta().group(0).members[1].target);
  cluster.crash(i);
  ASSERT_TRUE(eventually([&] { return cluster.meta().group(0).members.size() == 1; }));
  auto refused = client->write_once(client->spec(cluster.chunk_in(0, 1)), "x", milliseconds(300));
  ASSERT_FALSE(refused);
  cluster.start(i);
  WriteSpec spec = client->spec(chunk);
  spec.offset = 5;
  auto written = client->write(spec, "joined");
  ASSERT_TRUE(written) << written.error().to_string();
  std::string expected = before;
  expected.replace(5, 6, "joined");
  EXPECT_EQ(cluster.disk(i)->content(kPool, chunk), expected);  // acknowledged: two members have it
  EXPECT_TRUE(client->sync(chunk, written->version));
}

TEST(Cluster, AnEndedSessionIsRefusedAndConfirmed) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  ASSERT_TRUE(client->write(client->spec(chunk), "mine"));
  cluster.meta().end_session(SessionId(500));
  ASSERT_TRUE(eventually([&] {
    return cluster.meta().fences_confirmed(cluster.id(0)) == 1 &&
           cluster.meta().fences_confirmed(cluster.id(1)) == 1;
  }));
  EXPECT_EQ(client->write_once(client->spec(chunk), "late", seconds(1)).error().code(), Code::kSessionEnded);
  // A restart does not forget.
  cluster.crash(0);
  cluster.crash(1);
  cluster.start(0);
  cluster.start(1);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(client->write(client->spec(chunk), "late").error().code(), Code::kSessionEnded);
  auto other = cluster.client(501);
  EXPECT_EQ(*other->read(chunk), "mine");
}

TEST(Cluster, AnEarlierLeaseIsRefused) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto first = cluster.client(500), second = cluster.client(501);
  const ChunkId chunk = cluster.chunk_in(0);
  WriteSpec early = first->spec(chunk), later = second->spec(chunk), late = first->spec(chunk);
  early.lease = late.lease = LeaseGeneration(4);
  later.lease = LeaseGeneration(5);
  ASSERT_TRUE(first->write(early, "first"));
  ASSERT_TRUE(second->write(later, "second"));
  EXPECT_EQ(first->write(late, "late").error().code(), Code::kLeaseLost);
  // The next head knows it too.
  cluster.crash(cluster.index_of(cluster.meta().group(0).members.front().target));
  EXPECT_EQ(first->write(late, "late").error().code(), Code::kLeaseLost);
  EXPECT_EQ(*second->read(chunk), "second");
}

TEST(Cluster, AFenceWaitsForTheWriteInProgress) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const auto members = cluster.meta().group(0).members;
  const std::size_t head = cluster.index_of(members[0].target);
  const std::string tail = cluster.address(cluster.index_of(members[1].target));
  ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0, 1)), "first"));
  cluster.transport().cut(tail);
  auto pending = std::async(std::launch::async,
                            [&] { return client->write_once(client->spec(chunk), "accepted", seconds(15)); });
  ASSERT_TRUE(eventually([&] { return cluster.disk(head)->content(kPool, chunk).has_value(); }));
  cluster.meta().end_session(SessionId(500));
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_EQ(cluster.meta().fences_confirmed(cluster.id(head)), 0u);
  cluster.transport().heal(tail);
  EXPECT_TRUE(eventually([&] { return cluster.meta().fences_confirmed(cluster.id(head)) == 1; }));
  EXPECT_TRUE(pending.get());
  EXPECT_EQ(cluster.disk(1 - head)->content(kPool, chunk), "accepted");
}

TEST(Cluster, AFlippedByteIsRepairedFromAnotherMember) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  const std::string bytes = pattern(100'000, 1);
  ASSERT_TRUE(client->write(client->spec(chunk), bytes));
  ASSERT_TRUE(cluster.disk(0)->damage(kPool, chunk, 70'000));
  auto read = client->read_once(chunk, cluster.target(0), seconds(5));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(*read, bytes);
  EXPECT_EQ(cluster.disk(0)->content(kPool, chunk), bytes);
  EXPECT_EQ(cluster.server(0).counters().corrupt_repaired.load(), 1u);
  EXPECT_EQ(cluster.server(0).counters().corrupt_found.load(), 1u);
}

// Two copies with different bad blocks were both given up, because only a whole good copy would do.
TEST(Cluster, CopiesWithDifferentBadBlocksMendEachOther) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  std::string bytes = pattern(1 << 20, 1);
  ASSERT_TRUE(client->write(client->spec(chunk), bytes));
  for (std::uint32_t at : {10u, 70'000u, 90'000u, 1'000'000u})
    ASSERT_TRUE(cluster.disk(0)->damage(kPool, chunk, at));
  for (std::uint32_t at : {40'000u, 99'000u}) ASSERT_TRUE(cluster.disk(1)->damage(kPool, chunk, at));
  // A partial write over a damaged block repairs it first, at the head.
  WriteSpec spec = client->spec(chunk);
  spec.offset = 20;
  const auto written = client->write(spec, "partial");
  ASSERT_TRUE(written) << written.error().to_string();
  bytes.replace(20, 7, "partial");
  for (std::size_t i : {0, 1}) {
    auto read = client->read_once(chunk, cluster.target(i), seconds(5));
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_TRUE(*read == bytes);
    EXPECT_TRUE(cluster.disk(i)->content(kPool, chunk) == bytes);
  }
  EXPECT_EQ(cluster.server(0).counters().corrupt_found.load(), 4u);
  EXPECT_EQ(cluster.server(0).counters().corrupt_repaired.load(), 4u);
  EXPECT_EQ(cluster.server(1).counters().corrupt_found.load(), 2u);
  EXPECT_EQ(cluster.server(1).counters().corrupt_repaired.load(), 2u);
}

// Each read of a lost block counted it again and set the two servers repairing from each other for ever.
TEST(Cluster, ABlockWithoutAGoodCopyIsCountedOnceAndTheRestIsServed) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  std::string bytes = pattern(200'000, 1);
  ASSERT_TRUE(client->write(client->spec(chunk), bytes));
  ASSERT_TRUE(cluster.disk(0)->damage(kPool, chunk, 3 * kBlockSize));
  ASSERT_TRUE(cluster.disk(1)->damage(kPool, chunk, 3 * kBlockSize + 1));
  ASSERT_TRUE(cluster.disk(0)->damage(kPool, chunk, 5 * kBlockSize));
  for (int n = 0; n < 20; ++n) {
    for (std::size_t i : {0, 1}) {
      auto read = client->read_once(chunk, cluster.target(i), seconds(5));
      ASSERT_FALSE(read);
      EXPECT_EQ(read.error().code(), Code::kCorrupt);
      EXPECT_NE(read.error().message().find("bytes 49152 to 65536"), std::string::npos)
          << read.error().message();
    }
  }
  EXPECT_EQ(cluster.server(0).counters().corrupt_found.load(), 2u);
  EXPECT_EQ(cluster.server(1).counters().corrupt_found.load(), 1u);
  EXPECT_EQ(cluster.server(0).counters().corrupt_repaired.load(), 1u);
  EXPECT_EQ(cluster.server(1).counters().corrupt_repaired.load(), 0u);
  for (std::size_t i : {0, 1}) {
    EXPECT_TRUE(*client->read_once(chunk, cluster.target(i), seconds(5), 0, 3 * kBlockSize) ==
                bytes.substr(0, 3 * kBlockSize));
    EXPECT_TRUE(*client->read_once(chunk, cluster.target(i), seconds(5), 4 * kBlockSize) ==
                bytes.substr(4 * kBlockSize));
  }
  // Written over as a whole, the block is good again; damaged again, that is news.
  WriteSpec spec = client->spec(chunk);
  spec.offset = 3 * kBlockSize - 5;
  const std::string fresh = pattern(kBlockSize + 10, 2);
  auto written = client->write(spec, fresh);
  ASSERT_TRUE(written) << written.error().to_string();
  bytes.replace(spec.offset, fresh.size(), fresh);
  for (std::size_t i : {0, 1})
    EXPECT_TRUE(*client->read_once(chunk, cluster.target(i), seconds(5)) == bytes) << i;
  ASSERT_TRUE(cluster.disk(0)->damage(kPool, chunk, 3 * kBlockSize));
  EXPECT_TRUE(*client->read_once(chunk, cluster.target(0), seconds(5)) == bytes);
  EXPECT_EQ(cluster.server(0).counters().corrupt_found.load(), 3u);
}

TEST(Cluster, NoLeaseNoService) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  cluster.meta().set_lease(milliseconds(600));
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  ASSERT_TRUE(client->write(client->spec(chunk), "x"));
  std::this_thread::sleep_for(milliseconds(50));
  cluster.meta().set_silent(true);
  ASSERT_TRUE(eventually([&] {
    auto read = client->read_once(chunk, cluster.target(0), seconds(1));
    return !read && read.error().code() == Code::kNotServing;
  }));
  EXPECT_EQ(client->write_once(client->spec(chunk), "y", seconds(1)).error().code(), Code::kNotServing);
  cluster.meta().set_silent(false);
  EXPECT_TRUE(client->write(client->spec(chunk), "z"));
}

TEST(Cluster, TheMetadataServerMayRestart) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0);
  ASSERT_TRUE(client->write(client->spec(chunk), "before"));
  const std::uint64_t before = cluster.meta().registrations();
  const Epoch epoch = cluster.meta().group(0).epoch;
  cluster.meta().stop();
  EXPECT_EQ(*client->read_once(chunk, cluster.target(0), seconds(1)), "before");
  ASSERT_TRUE(cluster.meta().listen(cluster.transport(), "meta"));
  ASSERT_TRUE(eventually([&] { return cluster.meta().registrations() >= before + 2; }));
  EXPECT_TRUE(client->write(client->spec(chunk), "after"));
  EXPECT_EQ(cluster.meta().group(0).epoch, epoch);  // nobody restarted: nothing to catch up
}

// Such a server tried again every five seconds for ever, and nobody noticed that it served nothing.
TEST(Cluster, GivesUpWhenItsMetadataServerIsOfAnotherCluster) {
  TestCluster cluster({.servers = 1, .replicas = 1});
  ASSERT_TRUE(cluster.wait_whole());
  cluster.meta().stop();
  FakeMeta stranger(cluster.runtime(), ClusterId(8), 4, 1);
  ASSERT_TRUE(stranger.listen(cluster.transport(), "meta"));
  ASSERT_TRUE(eventually([&] { return cluster.gave_up(0).has_value(); }));
  const Error why = *cluster.gave_up(0);
  EXPECT_EQ(why.code(), Code::kWrongCluster);
  for (const std::string& named : {std::string("/disk0"), to_string(ClusterId(7)), to_string(ClusterId(8))})
    EXPECT_NE(why.message().find(named), std::string::npos) << why.message();
  EXPECT_EQ(stranger.registrations(), 0u);
  cluster.server(0).stop();
  stranger.stop();
}

TEST(Cluster, AfterAllRestartedTheHighestVersionWins) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  const ChunkId chunk = cluster.chunk_in(0), lost = cluster.chunk_in(0, 1);
  auto written = client->write(client->spec(chunk), "old");
  ASSERT_TRUE(written);
  const auto members = cluster.meta().group(0).members;
  const std::size_t head = cluster.index_of(members[0].target), tail = cluster.index_of(members[1].target);
  auto durable = client->spec(lost);
  durable.durable = true;
  ASSERT_TRUE(client->write(durable, "synced"));
  auto unsynced = client->write(client->spec(lost), "unsynced!");
  ASSERT_TRUE(unsynced);
  cluster.vanish(head);
  cluster.vanish(tail);
  // The tail has a higher version of one chunk; both lost the unsynced write of the other.
  cluster.disk(tail)->plant(kPool, chunk, {written->version.epoch, written->version.counter + 9}, "higher");
  for (std::size_t i : {head, tail})
    cluster.disk(i)->plant(kPool, lost, {written->version.epoch, 2}, "synced");
  cluster.meta().all_died();
  cluster.start(head);
  cluster.start(tail);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(cluster.disk(head)->content(kPool, chunk), "higher");
  EXPECT_EQ(*client->read(chunk), "higher");
  EXPECT_EQ(*client->read(lost), "synced");
  EXPECT_EQ(client->sync(lost, unsynced->version).error().code(), Code::kLostUnsynced);
  // A later write must not make the lost one look synced.
  auto later = client->write(client->spec(lost), "later");
  ASSERT_TRUE(later);
  EXPECT_GT(later->version, unsynced->version);
  EXPECT_EQ(client->sync(lost, unsynced->version).error().code(), Code::kLostUnsynced);
  EXPECT_TRUE(client->sync(lost, later->version));
}

TEST(Cluster, AFullMemberRefusesBeforeAnyoneStored) {
  TestCluster cluster({.servers = 2, .replicas = 2, .slots = 1, .capacity_bytes = 24 << 20});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  std::uint32_t stored = 0;
  Result<TestClient::Written> last = fail(Code::kInternal, "");
  for (; stored < 100; ++stored) {
    last = client->write(client->spec(cluster.chunk_in(0, stored)), pattern(1 << 20, stored));
    if (!last) break;
  }
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code(), Code::kNoSpace);
  EXPECT_GT(stored, 5u);
  for (std::uint32_t i = 0; i < stored; ++i)
    EXPECT_EQ(*client->read(cluster.chunk_in(0, i)), pattern(1 << 20, i));
  EXPECT_EQ(client->read(cluster.chunk_in(0, stored)).error().code(), Code::kNotFound);
  for (std::uint32_t i = 0; i < 8; ++i) cluster.meta().purge(cluster.chunk_in(0, i).data, 1);
  ASSERT_TRUE(eventually([&] {
    return client->write(client->spec(cluster.chunk_in(0, stored)), pattern(1 << 20, stored)).has_value();
  }));
}

// The answer to a hop was lost, and the disks are full when it comes again: it is stored, and must not be
// refused, or the chain would be of two minds.
TEST(Cluster, AHopThatIsStoredNeedsNoRoom) {
  TestCluster cluster({.servers = 3, .replicas = 3, .slots = 1, .capacity_bytes = 24 << 20});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  WriteSpec spec = client->spec(cluster.chunk_in(0, 0));
  const std::string bytes = pattern(1 << 20, 0);
  auto first = client->write(spec, bytes);
  ASSERT_TRUE(first);
  std::uint32_t n = 1;
  while (client->write(client->spec(cluster.chunk_in(0, n)), pattern(1 << 20, n))) ASSERT_LT(++n, 100u);
  const GroupConfig group = cluster.meta().group(0);
  spec.epoch = group.epoch;
  spec.version = first->version;
  auto again = client->hop(spec, bytes, group.members[1].target);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->version, first->version);
  spec.version.counter += 1000;
  EXPECT_EQ(client->hop(spec, bytes, group.members[1].target).error().code(), Code::kNoSpace);
}

TEST(Cluster, PurgesAreDoneOnEveryTargetAndReported) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  std::vector<ChunkId> chunks;
  for (std::uint32_t i = 0; i < 20; ++i) chunks.push_back({DataId(99), i, 0});
  for (const ChunkId& chunk : chunks) ASSERT_TRUE(client->write(client->spec(chunk), "x"));
  EXPECT_EQ(cluster.disk(0)->chunks(), 20u);
  cluster.meta().purge(DataId(99), 20);
  ASSERT_TRUE(eventually([&] {
    return cluster.meta().purges_confirmed(cluster.id(0)) == 1 &&
           cluster.meta().purges_confirmed(cluster.id(1)) == 1;
  }));
  EXPECT_EQ(cluster.disk(0)->chunks(), 0u);
  EXPECT_EQ(cluster.disk(1)->chunks(), 0u);
  EXPECT_EQ(client->read(chunks[0]).error().code(), Code::kNotFound);
}

// All there is to say of a sparse file are its chunks, not its indices.
TEST(Cluster, AnOrderForAHugeSparseFileIsDoneAtOnce) {
  TestCluster cluster({.servers = 1, .replicas = 1});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  for (std::uint32_t i = 0; i < 5000; ++i) {  // more than are looked at in one piece
    const ChunkId chunk{DataId(i % 2 == 0 ? 99 : 98), i * 800'000, 0};
    ASSERT_TRUE(client->write(client->spec(chunk), "x"));
  }
  cluster.meta().purge(DataId(99), UINT32_MAX);
  ASSERT_TRUE(eventually([&] { return cluster.meta().purges_confirmed(cluster.id(0)) == 1; }));
  EXPECT_EQ(cluster.disk(0)->chunks(), 2500u);
}

// The source still has what the joiner was told to purge thousands of orders ago.
TEST(Cluster, AJoinerAheadOfItsSourceWithPurgesKeepsNothing) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  cluster.crash(1);
  const ChunkId chunk{DataId(99), 0, 0};
  ASSERT_TRUE(client->write(client->spec(chunk), "x"));
  cluster.meta().keep_out(cluster.target(1), true);
  cluster.disk(0)->refuse_purges(true);
  constexpr std::uint64_t kOrders = 3000;
  for (std::uint64_t i = 0; i < kOrders; ++i) cluster.meta().purge(DataId(99 + i), 1);
  cluster.start(1);
  ASSERT_TRUE(eventually([&] { return cluster.meta().purges_confirmed(cluster.id(1)) == kOrders; }));
  cluster.meta().keep_out(cluster.target(1), false);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(cluster.disk(0)->chunks(), 1u);
  cluster.disk(0)->refuse_purges(false);
  ASSERT_TRUE(eventually([&] { return cluster.meta().purges_confirmed(cluster.id(0)) == kOrders; }));
  EXPECT_EQ(cluster.disk(0)->chunks(), 0u);
  EXPECT_EQ(cluster.disk(1)->chunks(), 0u);
}

// Three servers, two copies: server 1 is away while its group gets another member, then returns with old
// chunks.
struct Replaced : ::testing::Test {
  TestCluster cluster{{.servers = 3, .replicas = 2, .slots = 1}};
  std::unique_ptr<TestClient> client = cluster.client(500);
  std::uint32_t written = 0;
  void write() {
    const std::string bytes = pattern(30'000, written);
    ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0, written++)), bytes));
  }
  void lose_and_replace() {
    ASSERT_TRUE(cluster.wait_whole());
    while (written < 600) ASSERT_NO_FATAL_FAILURE(write());  // more than a page
    cluster.crash(1);
    cluster.meta().keep_out(cluster.target(1), true);
    cluster.meta().replace(cluster.target(2));
    ASSERT_TRUE(cluster.wait_whole());
    ASSERT_NO_FATAL_FAILURE(write());
    EXPECT_EQ(cluster.disk(1)->chunks(), 600u);
  }
  void expect_all_readable() {
    for (std::uint32_t n = 0; n < written; ++n)
      for (std::size_t i : {0, 2})
        ASSERT_TRUE(*client->read_once(cluster.chunk_in(0, n), cluster.target(i), seconds(5)) ==
                    pattern(30'000, n));
  }
};

TEST_F(Replaced, WhatIsLeftOverIsDroppedOnOrder) {
  ASSERT_NO_FATAL_FAILURE(lose_and_replace());
  cluster.start(1);
  ASSERT_TRUE(eventually([&] { return cluster.disk(1)->chunks() == 0; }));
  ASSERT_TRUE(eventually([&] { return cluster.meta().left_over(cluster.id(1)) == 0; }));
  expect_all_readable();
  EXPECT_EQ(cluster.disk(0)->chunks(), 601u);
  EXPECT_EQ(cluster.disk(2)->chunks(), 601u);
  EXPECT_EQ(cluster.meta().unknown_chunks(cluster.id(1)), 0u);
  // Emptied, it can still be a member again.
  cluster.crash(2);
  cluster.meta().keep_out(cluster.target(1), false);
  ASSERT_TRUE(cluster.wait_whole());
  EXPECT_EQ(cluster.disk(1)->chunks(), 601u);
}

TEST_F(Replaced, ADropEndsBeforeTheTargetIsAMemberAgain) {
  ASSERT_NO_FATAL_FAILURE(lose_and_replace());
  cluster.start(1);
  ASSERT_TRUE(eventually([&] { return cluster.disk(1)->chunks() < 600; }));
  cluster.meta().keep_out(cluster.target(1), false);
  cluster.crash(2);  // now it has to come back, whatever is being dropped
  ASSERT_TRUE(cluster.wait_whole());
  for (std::uint32_t n = 0; n < written; ++n)
    ASSERT_TRUE(cluster.disk(1)->content(kPool, cluster.chunk_in(0, n)) == pattern(30'000, n)) << n;
}

TEST_F(Replaced, NothingIsDroppedWithoutAnOrderThatFits) {
  cluster.meta().set_reclaim(false);
  ASSERT_NO_FATAL_FAILURE(lose_and_replace());
  cluster.start(1);
  ASSERT_TRUE(eventually([&] { return cluster.meta().left_over(cluster.id(1)) == 1; }));
  const GroupConfig now = cluster.meta().group(0);
  const auto obeyed = [&](std::size_t i, DropOrder order) {
    cluster.meta().order_drop(order);
    const std::uint64_t before = cluster.meta().heartbeats(cluster.id(i));
    // Orders are looked at before the next heartbeat is sent.
    return eventually([&] { return cluster.meta().heartbeats(cluster.id(i)) >= before + 3; });
  };
  ASSERT_TRUE(obeyed(1, {now.id, cluster.target(1), Epoch(now.epoch.value() - 1)}));
  ASSERT_TRUE(obeyed(1, {now.id, cluster.target(1), Epoch(now.epoch.value() + 1)}));
  ASSERT_TRUE(obeyed(0, {now.id, cluster.target(0), now.epoch}));  // a member
  ASSERT_TRUE(obeyed(1, {GroupId{kPool, 77}, cluster.target(1), now.epoch}));
  EXPECT_EQ(cluster.disk(1)->chunks(), 600u);
  EXPECT_EQ(cluster.disk(0)->chunks(), 601u);
  // The right one, while a member can't be asked: it may not go without each one's word.
  cluster.transport().cut("cs2");
  ASSERT_TRUE(obeyed(1, {now.id, cluster.target(1), now.epoch}));
  EXPECT_EQ(cluster.disk(1)->chunks(), 600u);
  cluster.transport().heal("cs2");
}

TEST_F(Replaced, AChunkThatAMemberDoesNotListIsKeptAsideAndCounted) {
  ASSERT_NO_FATAL_FAILURE(lose_and_replace());
  const ChunkId alone = cluster.chunk_in(0, 5000), purged = cluster.chunk_in(0, 5001);
  cluster.disk(1)->plant(kPool, alone, {Epoch(1), 1}, "nobody else has this");
  cluster.disk(1)->plant(kPool, purged, {Epoch(1), 1}, "nor this, which a purge will take");
  cluster.start(1);
  ASSERT_TRUE(eventually([&] {
    return cluster.disk(1)->chunks() == 2 && cluster.meta().unknown_chunks(cluster.id(1)) == 2 &&
           cluster.meta().left_over(cluster.id(1)) == 0;
  }));
  EXPECT_EQ(cluster.disk(1)->content(kPool, alone), "nobody else has this");
  // Known over a restart, too, and not reported as left over again.
  cluster.vanish(1);
  cluster.start(1);
  cluster.meta().purge(purged.data, 1);
  ASSERT_TRUE(eventually([&] { return cluster.disk(1)->chunks() == 1; }));
  EXPECT_EQ(cluster.meta().left_over(cluster.id(1)), 0u);
  expect_all_readable();
}

TEST(Cluster, AFailedDiskLeavesAndTheProcessStays) {
  TestCluster cluster({.servers = 3, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0)), "x"));
  cluster.disk(0)->fail_io();
  for (std::uint32_t slot = 0; slot < 4; ++slot) {
    auto written = client->write(client->spec(cluster.chunk_in(slot)), "y");
    ASSERT_TRUE(written) << slot << " " << written.error().to_string();
    EXPECT_EQ(*client->read(cluster.chunk_in(slot)), "y");
  }
}

TEST(Cluster, StopsInGoodOrder) {
  TestCluster cluster({.servers = 2, .replicas = 2});
  ASSERT_TRUE(cluster.wait_whole());
  auto client = cluster.client(500);
  ASSERT_TRUE(client->write(client->spec(cluster.chunk_in(0)), "x"));
  cluster.server(0).stop();
  EXPECT_EQ(client->read_once(cluster.chunk_in(0), cluster.target(0), seconds(1)).error().code(),
            Code::kUnavailable);
}

}  // namespace
}  // namespace cairn::chunkserver
