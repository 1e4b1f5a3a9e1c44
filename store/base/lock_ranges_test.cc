#include "store/base/lock_ranges.h"

#include <gtest/gtest.h>

#include <array>

#include "store/base/rng.h"

namespace cairn {
namespace {

using Part = LockRanges::Part;

TEST(LockRanges, SplitsMergesAndReplaces) {
  LockRanges locks;
  locks.set({0, 99}, LockType::kRead);
  locks.set({40, 59}, LockType::kWrite);
  EXPECT_EQ(locks.parts(),
            (std::vector<Part>{
                {{0, 39}, LockType::kRead}, {{40, 59}, LockType::kWrite}, {{60, 99}, LockType::kRead}}));
  locks.set({40, 59}, LockType::kRead);
  EXPECT_EQ(locks.parts(), (std::vector<Part>{{{0, 99}, LockType::kRead}}));
  locks.set({10, 10}, LockType::kNone);
  EXPECT_EQ(locks.count(), 2u);
  locks.set(kWholeFile, LockType::kNone);
  EXPECT_TRUE(locks.empty());
}

TEST(LockRanges, TheLastByteOfTheFile) {
  LockRanges locks;
  locks.set({UINT64_MAX, UINT64_MAX}, LockType::kWrite);
  locks.set({5, UINT64_MAX - 1}, LockType::kWrite);
  EXPECT_EQ(locks.parts(), (std::vector<Part>{{{5, UINT64_MAX}, LockType::kWrite}}));
  locks.set({0, 4}, LockType::kRead);
  EXPECT_EQ(locks.conflict({0, 4}, LockType::kRead), std::nullopt);
  EXPECT_EQ(locks.conflict({0, 4}, LockType::kWrite), (Part{{0, 4}, LockType::kRead}));
  EXPECT_EQ(locks.conflict({4, 5}, LockType::kRead), (Part{{5, UINT64_MAX}, LockType::kWrite}));
}

// Against a lock for each byte, of files so small that most operations meet, at both ends of the offsets.
TEST(LockRanges, AgreesWithOneLockPerByte) {
  constexpr unsigned kBytes = 24;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRng rng(seed);
    const std::uint64_t base = seed % 2 == 0 ? 0 : UINT64_MAX - (kBytes - 1);
    LockRanges locks;
    std::array<LockType, kBytes> model{};
    for (int step = 0; step < 300; ++step) {
      auto a = rng.below(kBytes), b = rng.below(kBytes);
      if (a > b) std::swap(a, b);
      const auto type = static_cast<LockType>(rng.below(3));
      locks.set({base + a, base + b}, type);
      for (auto i = a; i <= b; ++i) model[i] = type;

      std::vector<Part> expected;
      for (unsigned i = 0; i < kBytes; ++i) {
        if (model[i] == LockType::kNone) continue;
        if (i > 0 && model[i - 1] == model[i]) {
          expected.back().range.last = base + i;
        } else {
          expected.push_back({{base + i, base + i}, model[i]});
        }
      }
      ASSERT_EQ(locks.parts(), expected) << "seed " << seed << " step " << step;

      const auto from = rng.below(kBytes), to = from + rng.below(kBytes - from);
      const auto wanted = static_cast<LockType>(rng.below(3));
      bool conflicts = false;
      for (auto i = from; i <= to; ++i) conflicts = conflicts || locks_conflict(model[i], wanted);
      ASSERT_EQ(locks.conflict({base + from, base + to}, wanted).has_value(), conflicts)
          << "seed " << seed << " step " << step;
    }
  }
}

}  // namespace
}  // namespace cairn
