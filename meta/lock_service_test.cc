// File locks over the wire: restarts, ends of sessions, waiters that are told.
#include <gtest/gtest.h>

#include <thread>

#include "meta/service_testing.h"
#include "store/base/log.h"

namespace cairn::meta {
namespace {

using testing::TestClient;
using testing::TestClock;
using testing::TestServer;

class LockServiceTest : public ::testing::Test {
 protected:
  LockServiceTest() : runtime_(clock_, 2, "test") {
    log_set_level(LogLevel::kError);
    start({});
    a = std::make_unique<TestClient>(runtime_, clock_, transport_);
    b = std::make_unique<TestClient>(runtime_, clock_, transport_);
    a->open_session();
    b->open_session();
  }
  ~LockServiceTest() override {
    a.reset();
    b.reset();
    server.reset();
    runtime_.stop();
  }
  void start(const MapKvStore::Content& content) {
    server.reset();
    server = std::make_unique<TestServer>(runtime_, clock_, transport_, content, "boot");
  }
  static void fill_lock(schema::FileLock::Builder lock, schema::LockType type) {
    lock.setInode(1);
    lock.setKind(schema::LockKind::RECORD);
    lock.setType(type);
    lock.setOwner(5);
    lock.setLast(UINT64_MAX);
  }
  Code lock(TestClient& from, schema::LockType type, schema::LockOutcome expected, std::uint64_t epoch = 1,
            std::uint64_t ticket = 0) {
    auto reply = from.call<rpc::method::Lock>([&](schema::LockRequest::Builder body) {
      body.setSession(from.session.value());
      body.setEpoch(epoch);
      body.setTicket(ticket);
      fill_lock(body.initLock(), type);
    });
    if (!reply) return reply.error().code();
    EXPECT_EQ((*reply)->getOutcome(), expected);
    return Code::kOk;
  }
  Code name(TestClient& from, std::uint64_t epoch, schema::LockType type) {
    auto reply = from.call<rpc::method::NameLocks>([&](schema::NameLocksRequest::Builder body) {
      body.setSession(from.session.value());
      body.setEpoch(epoch);
      if (type != schema::LockType::NONE) fill_lock(body.initLocks(1)[0], type);
    });
    if (!reply) return reply.error().code();
    return from.reassert({}, {}, {});
  }
  bool came(TestClient& to, std::uint64_t ticket) {
    for (int i = 0; i < 20'000; ++i) {
      for (const auto& settled : to.settled()) {
        if (settled.ticket == ticket) return settled.outcome == schema::LockOutcome::GRANTED;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  TestClock clock_;
  rpc::Runtime runtime_;
  rpc::MemoryTransport transport_;
  std::unique_ptr<TestServer> server;
  std::unique_ptr<TestClient> a, b;
  static constexpr auto kWrite = schema::LockType::WRITE;
  static constexpr auto kNone = schema::LockType::NONE;
  static constexpr auto kGranted = schema::LockOutcome::GRANTED;
  static constexpr auto kConflict = schema::LockOutcome::CONFLICT;
  static constexpr auto kWaiting = schema::LockOutcome::WAITING;
};

TEST_F(LockServiceTest, AWaiterIsTold) {
  EXPECT_EQ(lock(*a, kWrite, kGranted), Code::kOk);
  EXPECT_EQ(lock(*b, kWrite, kConflict), Code::kOk);
  EXPECT_EQ(lock(*b, kWrite, kWaiting, 1, 9), Code::kOk);
  EXPECT_TRUE(b->settled().empty());
  EXPECT_EQ(lock(*a, kNone, kGranted), Code::kOk);
  EXPECT_TRUE(came(*b, 9));
  EXPECT_EQ(lock(*a, kWrite, kConflict), Code::kOk);
}

TEST_F(LockServiceTest, AfterARestartLocksWaitForThoseWhoHeldSome) {
  EXPECT_EQ(lock(*a, kWrite, kGranted), Code::kOk);
  start(server->kill());
  ASSERT_TRUE(b->open_session(b->session));
  EXPECT_EQ(name(*b, 2, kNone), Code::kOk);
  EXPECT_EQ(lock(*b, kWrite, kGranted, 2), Code::kStarting);
  EXPECT_EQ(lock(*b, kNone, kGranted, 2), Code::kOk) << "unlocking hurts nobody";
  ASSERT_TRUE(a->open_session(a->session));
  EXPECT_EQ(name(*a, 2, kWrite), Code::kOk);
  EXPECT_EQ(lock(*b, kWrite, kConflict, 2), Code::kOk);
  EXPECT_EQ(lock(*a, kNone, kGranted, 1), Code::kStale) << "from before the restart";
  EXPECT_EQ(lock(*b, kWrite, kConflict, 2), Code::kOk);
}

TEST_F(LockServiceTest, AfterARestartWhoDoesNotComeBackLosesItsLocks) {
  EXPECT_EQ(lock(*a, kWrite, kGranted), Code::kOk);
  start(server->kill());
  ASSERT_TRUE(b->open_session(b->session));
  EXPECT_EQ(name(*b, 2, kNone), Code::kOk);
  clock_.advance(std::chrono::seconds(8));
  EXPECT_EQ(b->keep_alive(), Code::kOk);
  clock_.advance(std::chrono::seconds(3));  // the lease of `a` is over
  server->keeper->tick();
  Code code = Code::kStarting;
  for (int i = 0; i < 20'000 && code == Code::kStarting; ++i) code = lock(*b, kWrite, kGranted, 2);
  EXPECT_EQ(code, Code::kOk);
}

// What a session that ended may still write must be refused before anybody gets its locks.
TEST_F(LockServiceTest, LocksOfAnEndedSessionAreFreeWhenItIsFenced) {
  EXPECT_EQ(lock(*a, kWrite, kGranted), Code::kOk);
  server->cluster.gate().reset();
  server->keeper->end(a->session, "test");
  EXPECT_EQ(lock(*a, kNone, kGranted), Code::kSessionEnded);
  EXPECT_EQ(lock(*b, kWrite, kWaiting, 1, 9), Code::kOk);
  clock_.advance(std::chrono::seconds(11));  // its client may not believe in its lease any more
  EXPECT_TRUE(b->settled().empty());
  server->cluster.gate().set();
  EXPECT_TRUE(came(*b, 9));
}

// A grant whose waiter was not heard of any more: what is not named is free.
TEST_F(LockServiceTest, AReconnectDropsWhatTheClientDoesNotKnowOf) {
  EXPECT_EQ(lock(*a, kWrite, kGranted), Code::kOk);
  EXPECT_EQ(lock(*b, kWrite, kWaiting, 1, 9), Code::kOk);
  ASSERT_TRUE(a->open_session(a->session));
  EXPECT_EQ(name(*a, 2, kNone), Code::kOk);
  EXPECT_TRUE(came(*b, 9));
  ASSERT_TRUE(b->open_session(b->session));
  EXPECT_EQ(name(*b, 2, kNone), Code::kOk);
  EXPECT_EQ(lock(*a, kWrite, kGranted, 2), Code::kOk);
}

TEST_F(LockServiceTest, WhoNamesALockOfAnotherIsFenced) {
  EXPECT_EQ(lock(*a, kWrite, kGranted), Code::kOk);
  ASSERT_TRUE(b->open_session(b->session));
  EXPECT_EQ(name(*b, 2, kWrite), Code::kSessionEnded);
  EXPECT_EQ(b->keep_alive(), Code::kSessionEnded);
}

}  // namespace
}  // namespace cairn::meta
