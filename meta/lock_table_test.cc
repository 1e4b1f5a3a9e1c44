#include "meta/lock_table.h"

#include <gtest/gtest.h>

#include <array>

#include "store/base/rng.h"

namespace cairn::meta {
namespace {

constexpr SessionId kOne{1}, kTwo{2}, kThree{3};

FileLock record(SessionId session, std::uint64_t owner, LockType type, LockRange range = kWholeFile,
                std::uint64_t inode = 7) {
  return {
      InodeId(inode), LockKind::kRecord, type, {session, owner}, range, static_cast<std::uint32_t>(owner)};
}
FileLock whole(SessionId session, std::uint64_t owner, LockType type) {
  FileLock lock = record(session, owner, type);
  lock.kind = LockKind::kFlock;
  return lock;
}
LockOutcome ask(LockTable& table, const FileLock& lock, std::uint64_t ticket = 0, std::uint64_t epoch = 1) {
  auto answer = table.ask(lock, epoch, ticket);
  EXPECT_TRUE(answer) << answer.error().to_string();
  return answer ? answer->outcome : LockOutcome::kConflict;
}
// Tickets that ended, negative if denied.
std::vector<std::int64_t> settled(LockTable& table) {
  std::vector<std::int64_t> out;
  for (const SettledWait& wait : table.take_settled()) {
    const auto ticket = static_cast<std::int64_t>(wait.ticket);
    out.push_back(wait.answer.outcome == LockOutcome::kGranted ? ticket : -ticket);
  }
  return out;
}
using Tickets = std::vector<std::int64_t>;

TEST(LockTable, ConflictsBetweenOwnersNotWithinOne) {
  LockTable table;
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kRead)), LockOutcome::kGranted);
  EXPECT_EQ(ask(table, record(kTwo, 1, LockType::kRead)), LockOutcome::kGranted) << "owners are a session's";
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kWrite, {0, 9})), LockOutcome::kConflict);
  EXPECT_EQ(ask(table, record(kTwo, 1, LockType::kNone, {0, 9})), LockOutcome::kGranted);
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kWrite, {0, 9})), LockOutcome::kGranted);
  EXPECT_EQ(ask(table, record(kTwo, 1, LockType::kRead, {9, 20})), LockOutcome::kConflict);
  EXPECT_EQ(ask(table, whole(kTwo, 1, LockType::kWrite)), LockOutcome::kGranted) << "flock is another world";
  const auto found = table.test(record(kTwo, 1, LockType::kWrite));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->owner, (LockOwner{kOne, 1}));
  EXPECT_EQ(found->range, (LockRange{0, 9}));
  EXPECT_EQ(found->pid, 1u);
  EXPECT_FALSE(table.test(record(kOne, 1, LockType::kWrite, {0, 9})));
}

TEST(LockTable, WaitersAreServedInOrderAndKeepWhatTheyHave) {
  LockTable table;
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kWrite, {0, 9})), LockOutcome::kGranted);
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kRead, {5, 9}), 10), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kTwo, 3, LockType::kRead, {0, 9}), 11), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kThree, 4, LockType::kWrite, {0, 3}), 12), LockOutcome::kWaiting);
  EXPECT_EQ(settled(table), Tickets{});
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kRead, {5, 9})), LockOutcome::kGranted) << "a downgrade";
  EXPECT_EQ(settled(table), Tickets{10});
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kNone)), LockOutcome::kGranted);
  EXPECT_EQ(settled(table), Tickets{11});
  EXPECT_EQ(ask(table, record(kTwo, 3, LockType::kNone, {0, 3})), LockOutcome::kGranted);
  EXPECT_EQ(settled(table), Tickets{12});
}

TEST(LockTable, ACancelledWaitIsNeverGranted) {
  LockTable table;
  ask(table, record(kOne, 1, LockType::kWrite));
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kWrite), 10), LockOutcome::kWaiting);
  EXPECT_FALSE(table.cancel(kTwo, 2, 10)) << "of another epoch";
  EXPECT_TRUE(table.cancel(kTwo, 1, 10));
  EXPECT_FALSE(table.cancel(kTwo, 1, 10));
  ask(table, record(kOne, 1, LockType::kNone));
  EXPECT_EQ(settled(table), Tickets{});
  EXPECT_FALSE(table.test(record(kThree, 3, LockType::kWrite)));
}

TEST(LockTable, FlockConversionGivesUpTheOldLock) {
  LockTable table;
  ask(table, whole(kOne, 1, LockType::kRead));
  ask(table, whole(kTwo, 2, LockType::kRead));
  EXPECT_EQ(ask(table, whole(kOne, 1, LockType::kWrite), 10), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, whole(kTwo, 2, LockType::kWrite), 11), LockOutcome::kGranted)
      << "the first gave up its own: no deadlock";
  EXPECT_EQ(settled(table), Tickets{});
  ask(table, whole(kTwo, 2, LockType::kNone));
  EXPECT_EQ(settled(table), Tickets{10});
  EXPECT_EQ(ask(table, whole(kTwo, 2, LockType::kRead)), LockOutcome::kConflict);
}

TEST(LockTable, CirclesAreRefused) {
  LockTable table;
  ask(table, record(kOne, 1, LockType::kWrite, {0, 0}, 1));
  ask(table, record(kTwo, 2, LockType::kWrite, {0, 0}, 2));
  ask(table, record(kThree, 3, LockType::kWrite, {0, 0}, 3));
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kRead, {0, 0}, 2), 10), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kRead, {0, 0}, 3), 11), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kThree, 3, LockType::kRead, {0, 0}, 1), 12), LockOutcome::kDeadlock);
  EXPECT_EQ(ask(table, record(kThree, 3, LockType::kRead, {0, 0}, 4), 13), LockOutcome::kGranted);
  EXPECT_EQ(ask(table, record(kThree, 3, LockType::kNone, {0, 0}, 3)), LockOutcome::kGranted);
  EXPECT_EQ(settled(table), Tickets{11});
}

// Two readers that both want to write: the second one's wish is a circle.
TEST(LockTable, TwoUpgradesAreACircle) {
  LockTable table;
  ask(table, record(kOne, 1, LockType::kRead));
  ask(table, record(kTwo, 2, LockType::kRead));
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kWrite), 10), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kWrite), 11), LockOutcome::kDeadlock);
  ask(table, record(kTwo, 2, LockType::kNone));
  EXPECT_EQ(settled(table), Tickets{10});
}

// One thread of owner 1 waits for owner 2; another gets the lock that owner 2 waits for.
TEST(LockTable, AGrantThatClosesACircleEndsAWait) {
  LockTable table;
  ask(table, record(kTwo, 2, LockType::kWrite, {0, 0}, 1));
  ask(table, record(kThree, 3, LockType::kRead, {0, 0}, 2));
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kWrite, {0, 0}, 1), 10), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kWrite, {0, 0}, 2), 11), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kRead, {0, 0}, 2)), LockOutcome::kGranted);
  EXPECT_EQ(settled(table), Tickets{-11});
}

TEST(LockTable, TheEndOfASessionFreesItsLocks) {
  LockTable table;
  ask(table, record(kOne, 1, LockType::kWrite));
  ask(table, whole(kOne, 2, LockType::kWrite));
  EXPECT_EQ(ask(table, record(kTwo, 1, LockType::kWrite), 10), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, whole(kTwo, 1, LockType::kWrite), 11), LockOutcome::kWaiting);
  EXPECT_EQ(ask(table, whole(kThree, 1, LockType::kRead), 12), LockOutcome::kWaiting);
  table.drop(kThree);
  table.drop(kOne);
  EXPECT_EQ(settled(table), (Tickets{10, 11}));
  table.drop(kTwo);
  EXPECT_EQ(table.sessions(), 0u);
}

TEST(LockTable, NamingReplacesAllAndBeginsAnEpoch) {
  LockTable table;
  ask(table, record(kOne, 1, LockType::kWrite, {0, 9}));
  ask(table, record(kOne, 1, LockType::kWrite, {20, 29}));
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kRead, {20, 20}), 10), LockOutcome::kWaiting);
  ASSERT_TRUE(table.replace(kOne, 2, {record(kOne, 1, LockType::kRead, {0, 9})}));
  EXPECT_EQ(settled(table), Tickets{10}) << "what is not named is free";
  EXPECT_EQ(ask(table, record(kTwo, 2, LockType::kRead, {0, 9})), LockOutcome::kGranted);
  EXPECT_EQ(table.ask(record(kOne, 1, LockType::kNone), 1, 0).error().code(), Code::kStale);
  EXPECT_EQ(table.ask(record(kOne, 1, LockType::kNone), 2, 0)->change, 1u);
  auto refused = table.replace(kOne, 3, {record(kOne, 1, LockType::kWrite, {5, 5})});
  EXPECT_EQ(refused.error().code(), Code::kConflict);
}

TEST(LockTable, OneSessionsLocksAreBounded) {
  LockTable table(3);
  for (std::uint64_t at : {0, 2, 4})
    EXPECT_EQ(ask(table, record(kOne, 1, LockType::kRead, {at, at})), LockOutcome::kGranted);
  EXPECT_EQ(table.ask(record(kOne, 1, LockType::kRead, {9, 9}), 1, 0).error().code(), Code::kNoSpace);
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kNone)), LockOutcome::kGranted);
  EXPECT_EQ(ask(table, record(kOne, 1, LockType::kRead, {9, 9})), LockOutcome::kGranted);
}

// Against one lock for each byte and owner, with a list of those who wait. Files so small that all meet.
class Model {
 public:
  static constexpr unsigned kBytes = 8, kOwners = 5;
  struct Wish {
    unsigned owner, from, to;
    LockType type;
    std::uint64_t ticket;
  };
  bool free_for(const Wish& wish) const {
    for (unsigned owner = 0; owner < kOwners; ++owner) {
      for (unsigned i = wish.from; i <= wish.to; ++i) {
        if (owner != wish.owner && locks_conflict(bytes_[owner][i], wish.type)) return false;
      }
    }
    return true;
  }
  void set(const Wish& wish) {
    for (unsigned i = wish.from; i <= wish.to; ++i) bytes_[wish.owner][i] = wish.type;
  }
  // Those that get theirs now, in order.
  Tickets grant() {
    Tickets out;
    for (bool again = true; again;) {
      again = false;
      for (std::size_t i = 0; i < waits.size();) {
        if (!free_for(waits[i])) {
          ++i;
          continue;
        }
        set(waits[i]);
        out.push_back(static_cast<std::int64_t>(waits[i].ticket));
        waits.erase(waits.begin() + static_cast<std::ptrdiff_t>(i));
        again = true;
      }
    }
    return out;
  }
  // Whether `from` waits for `to`, over any number of others.
  bool waits_for(unsigned from, unsigned to, unsigned depth = 0) const {
    if (depth > kOwners) return false;
    for (const Wish& wish : waits) {
      if (wish.owner != from) continue;
      for (unsigned owner : blockers(wish)) {
        if (owner == to || waits_for(owner, to, depth + 1)) return true;
      }
    }
    return false;
  }
  std::vector<unsigned> blockers(const Wish& wish) const {
    std::vector<unsigned> out;
    for (unsigned owner = 0; owner < kOwners; ++owner) {
      for (unsigned i = wish.from; i <= wish.to; ++i) {
        if (owner == wish.owner || !locks_conflict(bytes_[owner][i], wish.type)) continue;
        out.push_back(owner);
        break;
      }
    }
    return out;
  }
  std::vector<Wish> waits;

 private:
  std::array<std::array<LockType, kBytes>, kOwners> bytes_{};
};

TEST(LockTable, AgreesWithOneLockPerByte) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SeededRng rng(seed);
    LockTable table;
    Model model;
    std::uint64_t ticket = 0;
    for (int step = 0; step < 300; ++step) {
      const auto where = [&] { return ::testing::Message() << "seed " << seed << " step " << step; };
      if (!model.waits.empty() && rng.one_in(6)) {
        const auto i = rng.below(model.waits.size());
        const auto wish = model.waits[i];
        model.waits.erase(model.waits.begin() + static_cast<std::ptrdiff_t>(i));
        ASSERT_TRUE(table.cancel(SessionId(1 + wish.owner % 2), 1, wish.ticket)) << where();
        continue;
      }
      Model::Wish wish{};
      wish.owner = static_cast<unsigned>(rng.below(Model::kOwners));
      wish.from = static_cast<unsigned>(rng.below(Model::kBytes));
      wish.to = wish.from + static_cast<unsigned>(rng.below(Model::kBytes - wish.from));
      wish.type = static_cast<LockType>(rng.below(3));
      const bool busy = std::any_of(model.waits.begin(), model.waits.end(),
                                    [&](const auto& w) { return w.owner == wish.owner; });
      // An owner with one thread does nothing else while it waits.
      if (busy) continue;
      if (wish.type != LockType::kNone && rng.one_in(2)) wish.ticket = ++ticket;
      const FileLock lock =
          record(SessionId(1 + wish.owner % 2), wish.owner, wish.type, {wish.from, wish.to});
      const auto blockers = model.blockers(wish);
      const bool circle = std::any_of(blockers.begin(), blockers.end(),
                                      [&](unsigned owner) { return model.waits_for(owner, wish.owner); });
      ASSERT_EQ(table.test(lock).has_value(), !blockers.empty()) << where();
      const LockOutcome outcome = ask(table, lock, wish.ticket);
      if (blockers.empty()) {
        ASSERT_EQ(outcome, LockOutcome::kGranted) << where();
        model.set(wish);
      } else if (wish.ticket == 0) {
        ASSERT_EQ(outcome, LockOutcome::kConflict) << where();
      } else if (circle) {
        ASSERT_EQ(outcome, LockOutcome::kDeadlock) << where();
      } else {
        ASSERT_EQ(outcome, LockOutcome::kWaiting) << where();
        model.waits.push_back(wish);
      }
      ASSERT_EQ(settled(table), model.grant()) << where();
    }
  }
}

}  // namespace
}  // namespace cairn::meta
