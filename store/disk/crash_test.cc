// Crashes: at every write and sync of a scripted workload, and at random ones of random workloads. After
// each, every chunk is at one of the states it had since the last sync, synced data is there, checksums hold,
// and no space leaks.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>

#include "store/base/log.h"
#include "store/disk/engine_rig.h"

namespace cairn::disk {
namespace {

using Loss = CrashDisk::Loss;
constexpr std::uint32_t kKiB = 1024;

// One workload that goes through every way of changing a chunk, synced and not. True if it got to the end.
bool scripted(EngineRig& rig) {
  return rig.open() &&
         // First writes; then appends, logged and copied overwrites on unsynced and on synced bytes.
         rig.write(0, 0, 5 * kKiB) && rig.write(1, 0, 100 * kKiB) && rig.write(1, 100 * kKiB, 30'000) &&
         rig.write(1, 10'000, 4'096) && rig.sync() && rig.write(1, 100 * kKiB + 30'000, 50'000) &&
         rig.write(1, 20'000, 3'000) && rig.write(0, 1'000, 500) && rig.write(1, 5'000, 90'000) &&
         rig.write(1, 6'000, 4'000) && rig.sync() &&
         // Logged overwrites pending while the extent is replaced, cut, and written past the cut.
         rig.write(1, 50'000, 8'000) && rig.sync() && rig.write(1, 40'000, 70'000) &&
         rig.truncate(1, 90'001) && rig.write(1, 90'001, 20'000) && rig.write(1, 110'001, 120'000) &&
         rig.maintain() &&
         // Cut below synced bytes, then append over them before and after a sync.
         rig.truncate(1, 70'000) && rig.write(1, 70'000, 100'000) && rig.sync() && rig.truncate(1, 60'000) &&
         rig.sync() && rig.write(1, 60'000, 200'000, true) &&
         // From inline to extent, holes, gaps, zeros, removal and coming back.
         rig.write(0, 5 * kKiB, 60'000) && rig.punch(1, 3'000, 150'000) && rig.write(2, 150'000, 1'000) &&
         rig.put(3, 300'000, true) && rig.reversion(3) && rig.make_absent(3) && rig.write(3, 0, 90'000) &&
         rig.purge(0) && rig.sync() && rig.put(2, 80'000) && rig.write(2, 80'000, 10'000) &&
         rig.write(2, 0, 1'000) && rig.put(2, 70'000) && rig.maintain() && rig.reopen() &&
         // A chunk of more than one checksum row.
         rig.write(4, 0, 1'200'000) && rig.write(4, 100'000, 2'000) && rig.sync() &&
         rig.write(4, 1'200'000, 90'000) && rig.write(4, 1'190'000, 5'000) && rig.write(4, 900, 100) &&
         rig.truncate(4, 1'210'000) && rig.sync() && rig.write(4, 300'000, 66'000) && rig.truncate(4, 100) &&
         rig.write(1, 0, 10, true);
}

class CrashTest : public testing::TestWithParam<Loss> {
 protected:
  void SetUp() override { log_set_level(LogLevel::kOff); }
  void TearDown() override { log_set_level(LogLevel::kInfo); }
};

TEST_P(CrashTest, at_every_write_and_sync) {
  std::uint64_t total = 0;
  {
    EngineRig rig(1);
    std::uint64_t before = rig.disk().operations();
    ASSERT_TRUE(scripted(rig));
    total = rig.disk().operations() - before;
    rig.compare(Loss::kNothing);
  }
  ASSERT_GT(total, 100u);
  for (std::uint64_t point = 1; point <= total; ++point) {
    SCOPED_TRACE(testing::Message() << "crash at operation " << point << " of " << total);
    EngineRig rig(point);
    rig.disk().crash_at(point);
    scripted(rig);
    rig.crash(GetParam(), point % 4 == 0 ? 2 : 0);
    if (HasFatalFailure()) return;
    // It goes on working.
    ASSERT_TRUE(rig.write(1, rig.length(1), 70'000) && rig.write(9, 0, 100'000, true));
    rig.check();
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, CrashTest, testing::Values(Loss::kNothing, Loss::kAll, Loss::kSome),
                         [](const auto& info) {
                           return info.param == Loss::kNothing ? "process"
                                  : info.param == Loss::kAll   ? "power_lost_all"
                                                               : "power_lost_some";
                         });

void random_step(EngineRig& rig) {
  SeededRng& rng = rig.rng();
  std::uint32_t chunk = static_cast<std::uint32_t>(rng.below(5));
  auto up_to = [&](std::uint64_t n) { return static_cast<std::uint32_t>(rng.below(n)); };
  std::uint32_t length = rig.length(chunk);
  auto size = [&] { return 1 + (rng.one_in(3) ? up_to(200'000) : up_to(6'000)); };
  switch (rng.below(16)) {
    case 0:
    case 1:
    case 2:
      rig.write(chunk, length, size(), rng.one_in(5));  // append
      break;
    case 3:
    case 4:
    case 5:
    case 6:
      rig.write(chunk, up_to(length + 1), size(), rng.one_in(8));
      break;
    case 7:
      rig.write(chunk, up_to(400'000), size());
      break;
    case 8:
    case 9:
      rig.truncate(chunk, rng.one_in(4) ? up_to(400'000) : up_to(length + 1));
      break;
    case 10:
      rig.punch(chunk, up_to(length + 1), size());
      break;
    case 11:
      rig.put(chunk, up_to(300'000), rng.one_in(4));
      break;
    case 12:
      rng.one_in(2) ? rig.make_absent(chunk) : rig.reversion(chunk);
      break;
    case 13:
      if (rng.one_in(3)) rig.purge(chunk);
      break;
    case 14:
      rig.sync();
      break;
    default:
      if (rng.one_in(4)) rig.maintain();
      break;
  }
}

class RandomTest : public CrashTest {};

// CAIRN_CRASH_SEEDS=FIRST-LAST replays or searches further than the default.
std::pair<std::uint64_t, std::uint64_t> seeds() {
  std::uint64_t first = 1;
  std::uint64_t last = 20;
  if (const char* text = std::getenv("CAIRN_CRASH_SEEDS")) std::sscanf(text, "%lu-%lu", &first, &last);
  return {first, last};
}

// Random operations against the model, with clean reopening, crashes at random operations, and crashes in
// recovery.
TEST_P(RandomTest, operations_and_crashes) {
  auto [first, last] = seeds();
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    EngineRig rig(seed);
    ASSERT_TRUE(rig.open());
    for (int round = 0; round < 12; ++round) {
      SCOPED_TRACE(testing::Message() << "round " << round);
      if (!rig.rng().one_in(4)) rig.disk().crash_at(1 + rig.rng().below(60));
      for (int step = 0; step < 40 && !rig.disk().crashed(); ++step) random_step(rig);
      if (!rig.disk().crashed() && rig.rng().one_in(3)) {
        rig.disk().crash_at(0);
        ASSERT_TRUE(rig.reopen());
        rig.compare(Loss::kNothing);
      } else {
        rig.crash(GetParam(), static_cast<int>(rig.rng().below(3)));
      }
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, RandomTest, testing::Values(Loss::kNothing, Loss::kAll, Loss::kSome),
                         [](const auto& info) {
                           return info.param == Loss::kNothing ? "process"
                                  : info.param == Loss::kAll   ? "power_lost_all"
                                                               : "power_lost_some";
                         });

// Recovery itself is cut by a power failure, at each of its operations, after the process had died with
// unsynced bytes and logged overwrites on top of them. It once wrote logged bytes over what the older state
// still needed.
TEST(CrashInRecovery, at_every_write_and_sync) {
  log_set_level(LogLevel::kOff);
  auto prepare = [](EngineRig& rig) {
    return rig.open() && rig.write(0, 0, 75'213) && rig.write(1, 0, 100'000) && rig.sync() &&
           rig.punch(0, 61'264, 2'609) && rig.write(0, 75'213, 6'000) && rig.write(0, 66'420, 4'000) &&
           rig.write(1, 40'000, 160'000) && rig.punch(1, 98'047, 4'000) && rig.put(2, 90'000) &&
           rig.write(2, 90'000, 5'000) && rig.write(2, 100, 100);
  };
  std::uint64_t total = 0;
  {
    EngineRig rig(1);
    ASSERT_TRUE(prepare(rig));
    rig.stop(Loss::kNothing);
    std::uint64_t before = rig.disk().operations();
    ASSERT_TRUE(rig.open());
    total = rig.disk().operations() - before;
    rig.compare(Loss::kNothing);
  }
  ASSERT_GT(total, 20u);
  for (std::uint64_t point = 1; point <= total; ++point) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      SCOPED_TRACE(testing::Message()
                   << "crash at operation " << point << " of " << total << ", seed " << seed);
      EngineRig rig(point * 100 + seed);
      ASSERT_TRUE(prepare(rig));
      rig.stop(Loss::kNothing);
      rig.disk().crash_at(point);
      rig.open();
      rig.crash(seed == 0 ? Loss::kAll : Loss::kSome);
      if (HasFailure()) return;
    }
  }
}

// A full disk, at random: calls fail and change nothing, deletes work.
TEST(FullDisk, random_operations) {
  log_set_level(LogLevel::kOff);
  for (std::uint64_t seed = 100; seed < 106; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    EngineRig rig(seed);
    rig.allow_failure(Code::kNoSpace);
    ASSERT_TRUE(rig.open());
    for (int step = 0; step < 150; ++step) {
      if (step % 30 == 10) {
        rig.disk().set_fault(
            [&](CrashDisk::Operation operation, const std::string& path) -> std::optional<Code> {
              if (operation == CrashDisk::Operation::kWrite && path.starts_with("t/extents") &&
                  rig.rng().one_in(3))
                return Code::kNoSpace;
              return std::nullopt;
            });
      }
      if (step % 30 == 25) rig.disk().set_fault(nullptr);
      std::uint32_t chunk = static_cast<std::uint32_t>(rig.rng().below(4));
      switch (rig.rng().below(5)) {
        case 0:
          rig.put(chunk, static_cast<std::uint32_t>(rig.rng().below(300'000)));
          break;
        case 1:
          ASSERT_TRUE(rig.purge(chunk));
          break;
        default:
          rig.write(chunk, static_cast<std::uint32_t>(rig.rng().below(rig.length(chunk) + 1)),
                    static_cast<std::uint32_t>(1 + rig.rng().below(120'000)));
      }
      if (HasFailure()) return;
    }
    rig.disk().set_fault(nullptr);
    rig.compare(Loss::kNothing);
    rig.crash(Loss::kNothing);
    if (HasFailure()) return;
  }
  log_set_level(LogLevel::kInfo);
}

}  // namespace
}  // namespace cairn::disk
