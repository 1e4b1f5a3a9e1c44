#include "meta/store_format.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "meta/journal_guard.h"
#include "meta/keys.h"
#include "meta/meta_config.h"
#include "meta/records.h"
#include "meta/temp_dir.h"

namespace cairn::meta {
namespace {

namespace fs = std::filesystem;

StoreOptions options(bool init, const std::string& boot = "boot") {
  StoreOptions out;
  out.init = init;
  out.boot_id = boot;
  return out;
}

TEST(StoreFormatTest, EmptyStoreIsFormattedOnlyWhenTold) {
  MapKvStore kv;
  SeededRng rng(1);
  EXPECT_EQ(open_store(kv, options(false), rng).error().code(), Code::kNeedsOperator);
  EXPECT_TRUE(kv.after_kill().empty());
  auto formatted = open_store(kv, options(true), rng);
  ASSERT_TRUE(formatted);
  EXPECT_TRUE(formatted->formatted);
  EXPECT_TRUE(formatted->cluster.valid());
  EXPECT_EQ(kv.unsynced(), 0u);
  auto again = open_store(kv, options(true), rng);
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->formatted);
  EXPECT_EQ(again->cluster, formatted->cluster);
}

TEST(StoreFormatTest, RefusesWhatIsNotItsOwn) {
  SeededRng rng(1);
  MapKvStore foreign;
  ASSERT_TRUE(foreign.write({{"something", "else"}}));
  EXPECT_EQ(open_store(foreign, options(true), rng).error().code(), Code::kNeedsOperator);

  MapKvStore kv;
  ASSERT_TRUE(open_store(kv, options(true), rng));
  StoreOptions other = options(false);
  other.expected = ClusterId(12345);
  EXPECT_EQ(open_store(kv, other, rng).error().code(), Code::kWrongCluster);
  ASSERT_TRUE(kv.write({{keys::system("format"), CountRecord{kStoreFormat + 1}.encode()}}));
  EXPECT_EQ(open_store(kv, options(true), rng).error().code(), Code::kVersionMismatch);
  ASSERT_TRUE(kv.write({{keys::system("format"), "damaged"}}));
  EXPECT_EQ(open_store(kv, options(true), rng).error().code(), Code::kCorrupt);
}

TEST(StoreFormatTest, EraGrowsOnlyWhenTheMachineWentDownUncleanly) {
  MapKvStore kv;
  SeededRng rng(1);
  const Era first = open_store(kv, options(true, "one"), rng)->era;
  EXPECT_EQ(open_store(kv, options(false, "one"), rng)->era, first);  // the process was killed
  ASSERT_TRUE(mark_clean(kv));
  auto rebooted = open_store(kv, options(false, "two"), rng);
  EXPECT_EQ(rebooted->era, first);
  EXPECT_FALSE(rebooted->end_sessions);
  auto crashed = open_store(kv, options(false, "three"), rng);  // the mark counts once
  EXPECT_EQ(crashed->era.value(), first.value() + 1);
  EXPECT_TRUE(crashed->end_sessions);
}

TEST(StoreFormatTest, WhatWentBackInTimeIsNotServedUnlessTold) {
  MapKvStore kv;
  SeededRng rng(1);
  ASSERT_TRUE(open_store(kv, options(true), rng));
  ASSERT_TRUE(kv.write({{went_back_key(), "it went back"}}));
  for (int i = 0; i < 2; ++i) {
    auto refused = open_store(kv, options(false), rng);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kNeedsOperator);
    EXPECT_EQ(refused.error().message(), "it went back");
  }
  StoreOptions salvage = options(false);
  salvage.salvage = true;
  EXPECT_TRUE(open_store(kv, salvage, rng));
  EXPECT_TRUE(open_store(kv, options(false), rng));
}

TEST(DirectoryLockTest, OneAtATimeAndOnlyOurDirectories) {
  TempDir dir("format");
  {
    auto lock = DirectoryLock::take(dir.path());
    ASSERT_TRUE(lock);
    auto second = DirectoryLock::take(dir.path());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), Code::kLocked);
    EXPECT_NE(second.error().message().find(std::to_string(::getpid())), std::string::npos);
  }
  EXPECT_TRUE(DirectoryLock::take(dir.path()));
  std::ofstream(dir.path() + "/letters.txt") << "dear";
  EXPECT_EQ(DirectoryLock::take(dir.path()).error().code(), Code::kNeedsOperator);
}

TEST(MetaConfigTest, PrintedConfigReadsBackAndUnknownKeysAreErrors) {
  TempDir dir("format");
  fs::create_directories(dir.path());
  const std::string path = dir.path() + "/config.toml";
  MetaConfig config;
  config.data_dir = "/somewhere";
  config.lease = std::chrono::milliseconds(1234);
  std::ofstream(path) << print_meta_config(config);
  auto read = read_meta_config(path);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(print_meta_config(*read), print_meta_config(config));
  EXPECT_EQ(read->lease.count(), 1234);
  std::ofstream(path, std::ios::app) << "\n[other]\nkey = 1\n";
  EXPECT_EQ(read_meta_config(path).error().code(), Code::kConfig);
  std::ofstream(path) << "init = true\n";
  EXPECT_EQ(read_meta_config(path).error().code(), Code::kConfig);  // no data_dir
}

}  // namespace
}  // namespace cairn::meta
