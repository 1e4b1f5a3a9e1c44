#include <fcntl.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "client/fake_cluster.h"

namespace cairn::client {
namespace {

bool lock_state_reached(const std::function<bool()>& condition) {
  for (int i = 0; i < 20'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

LockSpec record_lock(LockType type, LockRange range = kWholeFile, std::uint64_t owner = 1) {
  return {LockKind::kRecord, type, range, owner, static_cast<std::uint32_t>(100 + owner)};
}
LockSpec flock_of(LockType type, std::uint64_t owner = 1) {
  return {LockKind::kFlock, type, kWholeFile, owner, static_cast<std::uint32_t>(100 + owner)};
}

// One client with the file "f" open.
struct LockHost {
  explicit LockHost(FakeCluster& cluster) : client(cluster.connect()), fs(client->files()) {
    auto made = fs.block_on<Opened>(fs.create(kRootInode, "f", 0644, O_RDWR | O_CREAT, {1, 1}));
    CHECK(made.has_value(), made ? "" : made.error().to_string());
    handle = made->handle;
    inode = made->entry.attr.inode;
  }
  Result<LockResult> lock(LockSpec wanted) {
    return fs.block_on<LockResult>(fs.lock(handle, wanted, nullptr));
  }
  Handle open() { return fs.block_on<Opened>(fs.open(inode, O_RDWR))->handle; }
  std::unique_ptr<ClientImpl> client;
  FileSystem& fs;
  Handle handle;
  InodeId inode;
};

// A wait for a lock in the background.
struct WaitingLock {
  WaitingLock(LockHost& host, LockSpec wanted) : wait(std::make_shared<LockWait>(host.fs.runtime())) {
    auto promise = std::make_shared<std::promise<Result<LockResult>>>();
    future = promise->get_future();
    host.fs.spawn<LockResult>(host.fs.lock(host.handle, wanted, wait), [promise](Result<LockResult> result) {
      promise->set_value(std::move(result));
    });
  }
  bool done() { return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  Result<LockResult> get() {
    CHECK(future.wait_for(std::chrono::seconds(30)) == std::future_status::ready, "the wait did not end");
    return future.get();
  }
  std::shared_ptr<LockWait> wait;
  std::future<Result<LockResult>> future;
};

TEST(FileLocks, HoldAcrossClients) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  EXPECT_EQ(a.lock(record_lock(LockType::kWrite, {0, 9})), LockResult::kGranted);
  EXPECT_EQ(b.lock(record_lock(LockType::kRead, {9, 9})), LockResult::kConflict);
  EXPECT_EQ(b.lock(record_lock(LockType::kRead, {10, 10})), LockResult::kGranted);
  EXPECT_EQ(b.lock(flock_of(LockType::kWrite)), LockResult::kGranted);
  auto found =
      b.fs.block_on<std::optional<LockSpec>>(b.fs.test_lock(b.handle, record_lock(LockType::kWrite)));
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->range, (LockRange{0, 9}));
  EXPECT_EQ((*found)->pid, 0u) << "a pid of another host means nothing here";
  LockSpec other = record_lock(LockType::kWrite, {0, 9}, 2);
  found = a.fs.block_on<std::optional<LockSpec>>(a.fs.test_lock(a.handle, other));
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->pid, 101u);
  EXPECT_TRUE(a.fs.may_hold_locks(a.handle, 1));
  EXPECT_FALSE(a.fs.may_hold_locks(a.handle, 2));
  EXPECT_EQ(a.lock(record_lock(LockType::kNone)), LockResult::kGranted);
  EXPECT_FALSE(a.fs.may_hold_locks(a.handle, 1));
  EXPECT_EQ(b.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
}

TEST(FileLocks, FilesWithoutLocksCostNothing) {
  FakeCluster cluster;
  LockHost a(cluster);
  cluster.reset_counts();
  EXPECT_FALSE(a.fs.may_hold_locks(a.handle, 1));
  a.fs.release_now(a.handle);
  EXPECT_EQ(cluster.requests(rpc::method::Lock::kNumber), 0u);
}

TEST(FileLocks, AWaiterIsToldWhenItIsItsTurn) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  ASSERT_EQ(a.lock(flock_of(LockType::kWrite)), LockResult::kGranted);
  WaitingLock waiting(b, flock_of(LockType::kWrite));
  ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_waiting() == 1; }));
  EXPECT_FALSE(waiting.done());
  EXPECT_EQ(cluster.requests(rpc::method::Lock::kNumber), 2u);
  ASSERT_EQ(a.lock(flock_of(LockType::kNone)), LockResult::kGranted);
  EXPECT_EQ(waiting.get(), LockResult::kGranted);
  EXPECT_EQ(cluster.requests(rpc::method::Lock::kNumber), 3u) << "nobody polls";
  EXPECT_EQ(a.lock(flock_of(LockType::kRead)), LockResult::kConflict);
}

TEST(FileLocks, AnInterruptedWaitIsForgotten) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  ASSERT_EQ(a.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
  WaitingLock waiting(b, record_lock(LockType::kWrite));
  ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_waiting() == 1; }));
  waiting.wait->interrupt();
  EXPECT_EQ(waiting.get(), LockResult::kInterrupted);
  EXPECT_EQ(cluster.locks_waiting(), 0u);
  ASSERT_EQ(a.lock(record_lock(LockType::kNone)), LockResult::kGranted);
  EXPECT_EQ(cluster.locks_held(), 0u);
}

// Interrupts and grants at the same moment: either the waiter holds the lock and knows it, or nobody does.
TEST(FileLocks, AnInterruptThatMeetsTheGrantLosesNothing) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  unsigned granted = 0;
  for (int round = 0; round < 200; ++round) {
    ASSERT_EQ(a.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
    WaitingLock waiting(b, record_lock(LockType::kWrite));
    ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_waiting() == 1; }));
    std::thread interrupt([&] { waiting.wait->interrupt(); });
    ASSERT_EQ(a.lock(record_lock(LockType::kNone)), LockResult::kGranted);
    interrupt.join();
    const auto result = waiting.get();
    ASSERT_TRUE(result);
    if (*result == LockResult::kGranted) {
      ++granted;
      ASSERT_EQ(cluster.locks_held(), 1u);
      ASSERT_EQ(b.lock(record_lock(LockType::kNone)), LockResult::kGranted);
    } else {
      ASSERT_EQ(*result, LockResult::kInterrupted);
    }
    ASSERT_EQ(cluster.locks_held(), 0u);
  }
  RecordProperty("granted", static_cast<int>(granted));
}

TEST(FileLocks, ARestartOfTheServerKeepsLocksAndWaits) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  ASSERT_EQ(a.lock(record_lock(LockType::kWrite, {0, 9})), LockResult::kGranted);
  ASSERT_EQ(a.lock(record_lock(LockType::kNone, {3, 3})), LockResult::kGranted);
  ASSERT_EQ(a.lock(flock_of(LockType::kRead)), LockResult::kGranted);
  WaitingLock waiting(b, record_lock(LockType::kWrite, {9, 9}));
  ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_waiting() == 1; }));
  cluster.restart_meta();
  ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_held() == 3 && cluster.locks_waiting() == 1; }));
  EXPECT_FALSE(waiting.done());
  EXPECT_EQ(b.lock(record_lock(LockType::kWrite, {3, 3}, 2)), LockResult::kGranted);
  EXPECT_EQ(b.lock(flock_of(LockType::kWrite)), LockResult::kConflict);
  ASSERT_EQ(a.lock(record_lock(LockType::kNone)), LockResult::kGranted);
  EXPECT_EQ(waiting.get(), LockResult::kGranted);
}

TEST(FileLocks, AReplyThatWasLostIsAskedForAgain) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  for (const Fault fault : {Fault::kLoseReply, Fault::kLoseRequest, Fault::kUnavailable}) {
    for (const LockType type : {LockType::kWrite, LockType::kNone}) {
      auto once = std::make_shared<std::atomic<bool>>(true);
      cluster.on_request([once, fault](int server, std::uint16_t method) {
        return server == -1 && method == rpc::method::Lock::kNumber && once->exchange(false) ? fault
                                                                                             : Fault::kNone;
      });
      ASSERT_EQ(a.lock(record_lock(type)), LockResult::kGranted);
      EXPECT_FALSE(*once);
      EXPECT_EQ(cluster.locks_held(), type == LockType::kNone ? 0u : 1u);
      EXPECT_EQ(a.fs.may_hold_locks(a.handle, 1), type != LockType::kNone);
    }
  }
  EXPECT_EQ(b.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
}

// flock() belongs to the description, fcntl() to the owner, whichever handles it used.
TEST(FileLocks, AClosedHandleGivesBackWhatOnlyItLocked) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  Handle second = a.open();
  const auto lock = [&](const Handle& handle, LockSpec wanted) {
    return a.fs.block_on<LockResult>(a.fs.lock(handle, wanted, nullptr));
  };
  ASSERT_EQ(lock(second, flock_of(LockType::kWrite, 5)), LockResult::kGranted);
  ASSERT_EQ(lock(second, record_lock(LockType::kWrite, {0, 0}, 6)), LockResult::kGranted);
  ASSERT_EQ(lock(second, record_lock(LockType::kWrite, {1, 1}, 7)), LockResult::kGranted);
  ASSERT_EQ(lock(a.handle, record_lock(LockType::kWrite, {2, 2}, 7)), LockResult::kGranted);
  a.fs.release_now(second);
  // The same host asks at once, and never meets what it has just closed.
  EXPECT_EQ(a.lock(flock_of(LockType::kWrite, 8)), LockResult::kGranted);
  EXPECT_EQ(a.lock(record_lock(LockType::kWrite, {0, 0}, 8)), LockResult::kGranted);
  EXPECT_EQ(b.lock(record_lock(LockType::kWrite, {1, 2})), LockResult::kConflict)
      << "owner 7 has the other handle";
}

TEST(FileLocks, AnEndedSessionTakesItsLocksAndItsDescriptorsWithIt) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  Handle without = a.open();
  ASSERT_EQ(a.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
  cluster.end_session(a.client->session());
  ASSERT_EQ(b.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
  EXPECT_EQ(a.lock(record_lock(LockType::kWrite, kWholeFile, 2)).error().code(), Code::kSessionEnded);
  const auto read = [&](const Handle& handle) -> Result<> {
    if (auto known = a.fs.try_read(handle, 0, 1))
      return known->has_value() ? Result<>{} : fail(known->error());
    auto data = a.fs.block_on<rpc::Payload>(a.fs.read(handle, 0, 1));
    return data ? Result<>{} : fail(data.error());
  };
  EXPECT_EQ(read(a.handle).error().code(), Code::kSessionEnded);
  EXPECT_EQ(
      a.fs.block_on<std::uint32_t>(a.fs.write(a.handle, 0, rpc::Buffer::copy(as_bytes("x")))).error().code(),
      Code::kSessionEnded);
  EXPECT_EQ(a.lock(record_lock(LockType::kNone)), LockResult::kGranted) << "it is gone, as asked";
  EXPECT_TRUE(read(without)) << "no lock was taken through it";
  Handle again = a.open();
  EXPECT_TRUE(read(again));
  EXPECT_EQ(a.fs.block_on<LockResult>(a.fs.lock(again, record_lock(LockType::kWrite), nullptr)),
            LockResult::kConflict);
}

TEST(FileLocks, WaitsEndWithTheClient) {
  FakeCluster cluster;
  LockHost a(cluster), b(cluster);
  ASSERT_EQ(a.lock(record_lock(LockType::kWrite)), LockResult::kGranted);
  WaitingLock waiting(b, record_lock(LockType::kWrite));
  ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_waiting() == 1; }));
  b.fs.end_lock_waits();
  EXPECT_EQ(waiting.get().error().code(), Code::kCancelled);
  EXPECT_TRUE(b.client->close());
  ASSERT_TRUE(lock_state_reached([&] { return cluster.locks_waiting() == 0; }));
}

}  // namespace
}  // namespace cairn::client
