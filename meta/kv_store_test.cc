#include "meta/kv_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "meta/temp_dir.h"
#include "meta/txn_overlay.h"
#include "store/base/rng.h"

namespace cairn::meta {
namespace {

// One suite for every implementation; the parameter says which.
class KvStoreTest : public ::testing::TestWithParam<bool> {
 protected:
  KvStoreTest() { open(); }
  void open() {
    kv_.reset();
    if (GetParam()) {
      kv_ = open_rocks_kv(dir_.path()).value();
    } else {
      kv_ = std::make_unique<MapKvStore>();
    }
  }
  std::vector<std::string> keys(std::string_view prefix, std::string_view from = {},
                                std::size_t limit = 100) {
    std::vector<std::string> out;
    EXPECT_TRUE(kv_->scan(prefix, from, [&](std::string_view key, std::string_view) {
      out.emplace_back(key);
      return out.size() < limit;
    }));
    return out;
  }
  TempDir dir_{"kv"};
  std::unique_ptr<KvStore> kv_;
};
INSTANTIATE_TEST_SUITE_P(Both, KvStoreTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "rocksdb" : "map"; });

TEST_P(KvStoreTest, GetPutDelete) {
  EXPECT_EQ(kv_->get("a").value(), std::nullopt);
  ASSERT_TRUE(kv_->write({{"a", "1"}, {"b", ""}, {"c", "3"}, {"c", std::nullopt}}));
  EXPECT_EQ(kv_->get("a").value(), "1");
  EXPECT_EQ(kv_->get("b").value(), "");
  EXPECT_EQ(kv_->get("c").value(), std::nullopt);
  ASSERT_TRUE(kv_->sync());
}

TEST_P(KvStoreTest, ScanStaysInsidePrefix) {
  const std::string high("\xff\xff", 2);
  ASSERT_TRUE(
      kv_->write({{"a", ""}, {"b", ""}, {"b1", ""}, {"b2", ""}, {"c", ""}, {high, ""}, {high + "x", ""}}));
  using V = std::vector<std::string>;
  EXPECT_EQ(keys("b"), (V{"b", "b1", "b2"}));
  EXPECT_EQ(keys("b", "b1"), (V{"b1", "b2"}));
  EXPECT_EQ(keys("b", "b11"), (V{"b2"}));
  EXPECT_EQ(keys("b", {}, 2), (V{"b", "b1"}));
  EXPECT_EQ(keys(high), (V{high, high + "x"}));
  EXPECT_EQ(keys("d"), V{});
}

TEST_P(KvStoreTest, OverlayAgreesWithPlainMap) {
  struct NoIds final : IdSource {
    std::uint64_t next() override { return 1; }
    Era era() const override { return Era(1); }
  } ids;
  SeededRng rng(11);
  std::map<std::string, std::string> model;
  for (int round = 0; round < 60; ++round) {
    StagedWrites batch;
    for (int operation = 0; operation < 4; ++operation) {
      OverlayTxn txn(*kv_, batch, ids, 0);
      auto after = model;
      for (int i = 0; i < 8; ++i) {
        const std::string key =
            std::string(1, static_cast<char>('a' + rng.below(3))) + std::to_string(rng.below(8));
        if (rng.one_in(3)) {
          txn.erase(key);
          after.erase(key);
        } else {
          const std::string value = std::to_string(rng.next());
          txn.put(key, value);
          after[key] = value;
        }
        const std::string prefix = rng.one_in(4) ? "" : std::string(1, static_cast<char>('a' + rng.below(3)));
        const std::string from = prefix.empty() || rng.one_in(2) ? "" : prefix + std::to_string(rng.below(8));
        std::map<std::string, std::string> seen;
        std::string last;
        ASSERT_TRUE(txn.scan(prefix, from, [&](std::string_view k, std::string_view v) {
          EXPECT_GT(k, last);
          last = k;
          seen.emplace(k, v);
          return true;
        }));
        std::map<std::string, std::string> want;
        for (auto& [k, v] : after) {
          if (k.starts_with(prefix) && k >= from) want.emplace(k, v);
        }
        ASSERT_EQ(seen, want) << "round " << round;
        auto got = txn.get(key).value();
        ASSERT_EQ(got.has_value(), after.contains(key));
      }
      if (rng.one_in(4)) continue;  // the operation failed: its writes are dropped
      for (auto& [k, v] : txn.writes()) batch.insert_or_assign(k, v);
      model = after;
    }
    KvBatch writes;
    for (auto& [k, v] : batch) writes.push_back({k, v});
    ASSERT_TRUE(kv_->write(writes));
  }
}

// The rows kept in memory are always those of the store, also when they have been pushed out and come back.
TEST(RocksKvStoreTest, RowsInMemoryAgreeWithTheStore) {
  TempDir dir("kv");
  RocksKvConfig config;
  config.row_cache_bytes = 4000;  // some twenty rows
  auto kv = open_rocks_kv(dir.path(), config).value();
  std::map<std::string, std::string> model;
  SeededRng rng(7);
  for (int step = 0; step < 20'000; ++step) {
    const std::string key = "k" + std::to_string(rng.below(100));
    const auto known = model.find(key);
    switch (rng.below(4)) {
      case 0: {
        const std::string value(rng.below(200), static_cast<char>('a' + step % 26));
        ASSERT_TRUE(kv->write({{key, "overwritten"}, {key, value}}));
        model[key] = value;
        break;
      }
      case 1:
        ASSERT_TRUE(kv->write({{key, std::nullopt}}));
        model.erase(key);
        break;
      default:
        ASSERT_EQ(kv->get(key).value(), known == model.end() ? std::nullopt : std::optional(known->second))
            << step;
    }
  }
}

TEST(RocksKvStoreTest, KeepsWhatWasWrittenAndRefusesASecondUser) {
  TempDir dir("kv");
  auto kv = open_rocks_kv(dir.path()).value();
  ASSERT_TRUE(kv->write({{"k", "v"}}));
  EXPECT_FALSE(open_rocks_kv(dir.path()).has_value());
  kv.reset();
  kv = open_rocks_kv(dir.path()).value();
  EXPECT_EQ(kv->get("k").value(), "v");
}

// Damage in entries that were synced is told; only an entry that a power cut left incomplete is dropped.
TEST(RocksKvStoreTest, DamagedJournalIsRefusedAnIncompleteLastEntryIsNot) {
  namespace fs = std::filesystem;
  TempDir dir("kv");
  auto kv = open_rocks_kv(dir.path()).value();
  for (int n = 0; n < 100; ++n) ASSERT_TRUE(kv->write({{"k" + std::to_string(n), std::string(1000, 'v')}}));
  ASSERT_TRUE(kv->sync());
  kv.reset();
  fs::path log;
  for (const auto& entry : fs::directory_iterator(dir.path()))
    if (entry.path().extension() == ".log") log = entry.path();
  ASSERT_GT(fs::file_size(log), 100'000u);
  fs::resize_file(log, fs::file_size(log) - 100);
  TempDir torn("kv-torn");
  fs::copy(dir.path(), torn.path(), fs::copy_options::recursive);
  {
    auto opened = open_rocks_kv(torn.path());
    ASSERT_TRUE(opened) << opened.error().to_string();
    EXPECT_TRUE((*opened)->get("k98").value());
    EXPECT_FALSE((*opened)->get("k99").value());
  }
  std::fstream(log, std::ios::in | std::ios::out | std::ios::binary).seekp(50'000) << "damage";
  auto refused = open_rocks_kv(dir.path());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kCorrupt);
  EXPECT_NE(refused.error().message().find("--salvage"), std::string::npos);
  EXPECT_EQ(open_rocks_kv(dir.path()).error().code(), Code::kCorrupt);  // trying changed nothing
  RocksKvConfig salvage;
  salvage.salvage = true;
  kv = open_rocks_kv(dir.path(), salvage).value();
  EXPECT_TRUE(kv->get("k10").value());
  EXPECT_FALSE(kv->get("k90").value());
}

TEST(MapKvStoreTest, PowerCutLosesWhatWasNotSynced) {
  MapKvStore kv;
  ASSERT_TRUE(kv.write({{"a", "1"}}));
  ASSERT_TRUE(kv.sync());
  ASSERT_TRUE(kv.write({{"b", "2"}}));
  ASSERT_TRUE(kv.write({{"c", "3"}}));
  EXPECT_EQ(kv.after_power_cut().size(), 1u);
  EXPECT_EQ(kv.after_power_cut(1).size(), 2u);
  EXPECT_EQ(kv.after_kill().size(), 3u);
  kv.fail_after(1);
  EXPECT_TRUE(kv.write({{"d", "4"}}));
  EXPECT_FALSE(kv.write({{"e", "5"}}));
  EXPECT_FALSE(kv.sync());
}

}  // namespace
}  // namespace cairn::meta
