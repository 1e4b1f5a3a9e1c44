// Whatever way a write reaches a member, the bytes afterwards are the same.
#include "chunkserver/apply.h"

#include <gtest/gtest.h>

#include "chunkserver/memory_engine.h"
#include "chunkserver/test_cluster.h"

namespace cairn::chunkserver {
namespace {

constexpr PoolId kApplyPool{1};
constexpr ChunkId kChunk{DataId(1), 0, 0};

WriteSpec spec(std::uint64_t counter, WriteKind kind, std::uint32_t offset, Version base) {
  WriteSpec s;
  s.chunk = kChunk;
  s.pool = kApplyPool;
  s.kind = kind;
  s.offset = offset;
  s.version = {Epoch(1), counter};
  s.base = base;
  s.request = {SessionId(1), counter};
  return s;
}

// Random writes through make_whole_blocks + apply_write agree with apply_to_bytes on a string.
TEST(Apply, MatchesAPlainModel) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SeededRng rng(seed);
    auto disk = std::make_shared<MemoryDisk>(ClusterId(1), ServerId(1), TargetId(1));
    auto engine = open_memory_engine(disk);
    std::string model;
    std::optional<disk::ChunkInfo> stored;
    for (std::uint64_t n = 1; n <= 40; ++n) {
      WriteKind kind = WriteKind::kWrite;
      if (stored) {
        const std::uint64_t dice = rng.below(10);
        if (dice == 0) kind = WriteKind::kTruncate;
        if (dice == 1) kind = WriteKind::kPunch;
        if (dice == 2) kind = WriteKind::kFresh;
        if (dice == 3) kind = WriteKind::kReversion;
        if (dice == 4) kind = WriteKind::kRemove;
      }
      WriteSpec s =
          spec(n, kind, static_cast<std::uint32_t>(rng.below(100'000)), stored ? stored->version : Version());
      if (rng.one_in(3)) s.offset = s.offset / kBlockSize * kBlockSize;
      s.length = static_cast<std::uint32_t>(rng.below(100'000));
      std::string bytes;
      if (carries_bytes(kind)) bytes = pattern(1 + rng.below(60'000), seed * 1000 + n);
      rpc::Buffer payload = bytes.empty() ? rpc::Buffer() : rpc::Buffer::copy(as_bytes(bytes));
      model = apply_to_bytes(std::move(model), s, as_bytes(bytes));
      if (carries_bytes(kind)) {
        bool bad = false;
        auto whole = make_whole_blocks(engine.get(), s, payload, stored, bad);
        ASSERT_TRUE(whole) << whole.error().to_string() << " seed " << seed << " step " << n;
        EXPECT_EQ(s.offset % kBlockSize, 0u);
        EXPECT_EQ(s.checksums.size(), blocks_in(payload.size()));
      }
      auto applied = apply_write(*engine, s, payload.bytes(), Onto::kStored);
      ASSERT_TRUE(applied) << applied.error().to_string() << " seed " << seed << " step " << n;
      stored = *applied;
      EXPECT_EQ(stored->version, s.version);
      if (kind == WriteKind::kRemove) {
        EXPECT_EQ(disk->content(kApplyPool, kChunk), std::nullopt);
      } else if (stored->state == disk::ChunkState::kPresent) {
        ASSERT_EQ(*disk->content(kApplyPool, kChunk), model) << "seed " << seed << " step " << n;
      }
    }
  }
}

TEST(Apply, SentAgainChangesNothing) {
  auto disk = std::make_shared<MemoryDisk>(ClusterId(1), ServerId(1), TargetId(1));
  auto engine = open_memory_engine(disk);
  const std::string bytes = pattern(100, 1);
  WriteSpec first = spec(1, WriteKind::kWrite, 0, {});
  ASSERT_TRUE(apply_write(*engine, first, as_bytes(bytes), Onto::kStored));
  WriteSpec second = spec(2, WriteKind::kTruncate, 0, first.version);
  second.length = 10;
  ASSERT_TRUE(apply_write(*engine, second, {}, Onto::kStored));
  auto again = apply_write(*engine, first, as_bytes(bytes), Onto::kStored);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->version, second.version);
  EXPECT_EQ(disk->content(kApplyPool, kChunk)->size(), 10u);
}

TEST(Apply, RefusesAGap) {
  auto disk = std::make_shared<MemoryDisk>(ClusterId(1), ServerId(1), TargetId(1));
  auto engine = open_memory_engine(disk);
  WriteSpec second = spec(2, WriteKind::kWrite, 0, {Epoch(1), 1});
  EXPECT_EQ(apply_write(*engine, second, as_bytes("x"), Onto::kStored).error().code(), Code::kStale);
  EXPECT_EQ(disk->chunks(), 0u);
}

TEST(Apply, TellsBadPayloadFromBadDisk) {
  auto disk = std::make_shared<MemoryDisk>(ClusterId(1), ServerId(1), TargetId(1));
  auto engine = open_memory_engine(disk);
  const std::string bytes = pattern(30'000, 1);
  WriteSpec first = spec(1, WriteKind::kWrite, 0, {});
  auto stored = apply_write(*engine, first, as_bytes(bytes), Onto::kStored);
  ASSERT_TRUE(stored);

  WriteSpec lying = spec(2, WriteKind::kWrite, 0, first.version);
  rpc::Buffer payload = rpc::Buffer::copy(as_bytes("hello"));
  lying.checksums = {12345};
  bool bad = false;
  EXPECT_EQ(make_whole_blocks(engine.get(), lying, payload, *stored, bad).error().code(), Code::kCorrupt);
  EXPECT_TRUE(bad);

  ASSERT_TRUE(disk->damage(kApplyPool, kChunk, 20));
  WriteSpec partial = spec(2, WriteKind::kWrite, 100, first.version);
  EXPECT_EQ(make_whole_blocks(engine.get(), partial, payload, *stored, bad).error().code(), Code::kCorrupt);
  EXPECT_FALSE(bad);
}

}  // namespace
}  // namespace cairn::chunkserver
