#include "store/rpc/task.h"

#include <gtest/gtest.h>

#include <atomic>

#include "store/base/clock.h"

namespace cairn::rpc {
namespace {

using namespace std::chrono_literals;

class Tasks : public ::testing::Test {
 protected:
  SystemClock clock;
  Runtime runtime{clock, 2, "test"};
  Deadline in(Duration d) { return Deadline::after(clock, d); }
};

Task<int> add(int a, int b) {
  co_return a + b;
}
Task<> set_flag(std::atomic<bool>* flag) {
  *flag = true;
  co_return;
}
struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
};
Task<Result<NoDefault>> no_default() {
  co_return NoDefault(3);
}
Task<> throws() {
  throw std::runtime_error("x");
  co_return;
}

TEST_F(Tasks, BlockOn) {
  EXPECT_EQ(block_on(runtime, add(2, 3)), 5);
  std::atomic<bool> flag = false;
  block_on(runtime, set_flag(&flag));
  EXPECT_TRUE(flag);
  EXPECT_EQ(block_on(runtime, no_default())->value, 3);
  EXPECT_THROW(block_on(runtime, throws()), std::runtime_error);
}

TEST_F(Tasks, SleepEndsAtItsTime) {
  const TimePoint before = clock.now();
  EXPECT_TRUE(block_on(runtime, sleep_for(runtime, 20ms)));
  EXPECT_GE(clock.now() - before, Duration(20ms));
  EXPECT_TRUE(block_on(runtime, sleep_until(runtime, before)));
}

Task<> sleep_long(Runtime* runtime, std::atomic<int>* cancelled) {
  auto slept = co_await sleep_for(*runtime, 1h);
  if (!slept && slept.error().code() == Code::kCancelled) ++*cancelled;
  auto again = co_await sleep_for(*runtime, 1h);  // a cancelled task stays cancelled
  if (!again && again.error().code() == Code::kCancelled) ++*cancelled;
}
Task<> wait_long(Event* event, std::atomic<int>* cancelled) {
  auto waited = co_await event->wait(Deadline::never());
  if (!waited && waited.error().code() == Code::kCancelled) ++*cancelled;
}
Task<> close_group(TaskGroup* group) {
  co_await group->close();
}

TEST_F(Tasks, GroupCancelsAndWaits) {
  Event event(runtime);
  std::atomic<int> cancelled = 0;
  for (int round = 0; round < 50; ++round) {
    TaskGroup group(runtime);
    cancelled = 0;
    for (int i = 0; i < 10; ++i) {
      EXPECT_TRUE(group.spawn(runtime.make_strand(), sleep_long(&runtime, &cancelled)));
      EXPECT_TRUE(group.spawn(runtime.executor(), wait_long(&event, &cancelled)));
    }
    if (round % 2 == 0) {
      group.close_blocking();
    } else {
      block_on(runtime, close_group(&group));
    }
    EXPECT_EQ(cancelled, 30);
    std::atomic<bool> flag = false;
    EXPECT_FALSE(group.spawn(runtime.executor(), set_flag(&flag)));
    group.close_blocking();
    EXPECT_FALSE(flag);
  }
}

TEST_F(Tasks, EventWakesAll) {
  Event event(runtime);
  EXPECT_EQ(block_on(runtime, event.wait(in(5ms))).error().code(), Code::kTimeout);
  std::atomic<int> woken = 0;
  TaskGroup group(runtime);
  auto waiter = [](Event* event, std::atomic<int>* woken) -> Task<> {
    auto waited = co_await event->wait(Deadline::never());
    if (waited) ++*woken;
  };
  for (int i = 0; i < 20; ++i) group.spawn(runtime.make_strand(), waiter(&event, &woken));
  event.set();
  EXPECT_TRUE(block_on(runtime, event.wait(in(5s))));
  EXPECT_TRUE(event.is_set());
  event.reset();
  EXPECT_FALSE(event.is_set());
  event.set();
  while (woken < 20) std::this_thread::yield();
  group.close_blocking();
}

// Two tasks hand a token to and fro across strands and threads; a lost wake-up would hang.
Task<> ping_pong(Event* mine, Event* other, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    auto waited = co_await mine->wait(Deadline::never());
    if (!waited) co_return;
    mine->reset();
    other->set();
  }
}
TEST_F(Tasks, EventsAcrossStrandsLoseNothing) {
  Event a(runtime), b(runtime);
  TaskGroup group(runtime);
  group.spawn(runtime.make_strand(), ping_pong(&a, &b, 5000));
  a.set();
  block_on(runtime, ping_pong(&b, &a, 5000));
  group.close_blocking();
}

TEST_F(Tasks, EventTimeoutsRaceWithSet) {
  for (int i = 0; i < 300; ++i) {
    Event event(runtime);
    std::thread setter([&] { event.set(); });
    auto waited = block_on(runtime, event.wait(in(std::chrono::microseconds(i))));
    if (!waited) {
      EXPECT_EQ(waited.error().code(), Code::kTimeout);
    }
    setter.join();
  }
}

Task<Result<bool>> runs_elsewhere(BlockingPool* pool, std::thread::id* on) {
  auto before = co_await asio::this_coro::executor;
  std::function<Result<int>()> work = [on]() -> Result<int> {
    *on = std::this_thread::get_id();
    return 7;
  };
  auto result = co_await pool->run<int>(std::move(work));
  auto after = co_await asio::this_coro::executor;
  const Strand* strand = after.target<Strand>();
  co_return result&&* result == 7 && before == after&& strand != nullptr && strand->running_in_this_thread();
}

TEST_F(Tasks, PoolRunsAndResumesOnTheCallersStrand) {
  BlockingPool pool(2, 100, "pool");
  std::thread::id on;
  for (int i = 0; i < 100; ++i) {
    auto result = block_on(runtime, runs_elsewhere(&pool, &on));
    ASSERT_TRUE(result);
    EXPECT_TRUE(*result);
    EXPECT_NE(on, std::this_thread::get_id());
  }
}

TEST_F(Tasks, PoolRefusesWhenFullAndReportsThrows) {
  BlockingPool pool(1, 2, "pool");
  std::promise<void> release, started;
  auto released = release.get_future().share();
  ASSERT_TRUE(pool.post([&started, released] {
    started.set_value();
    released.wait();
  }));
  started.get_future().wait();
  std::atomic<int> ran = 0;
  EXPECT_TRUE(pool.post([&] { ++ran; }));
  EXPECT_TRUE(pool.post([&] { ++ran; }));
  EXPECT_FALSE(pool.post([&] { ++ran; }));
  auto full = block_on(runtime, pool.run<void>([&]() -> Result<> {
    ++ran;
    return {};
  }));
  EXPECT_EQ(full.error().code(), Code::kOverloaded);
  release.set_value();
  Result<int> threw = fail(Code::kOverloaded, "");
  while (!threw && threw.error().code() == Code::kOverloaded) {
    threw = block_on(runtime, pool.run<int>([]() -> Result<int> { throw std::runtime_error("disk"); }));
  }
  EXPECT_EQ(threw.error().code(), Code::kInternal);
  EXPECT_EQ(ran, 2);
}

TEST_F(Tasks, StopWithSuspendedTasksDestroysThem) {
  auto own = std::make_unique<Runtime>(clock, 2, "own");
  auto kept = std::make_shared<int>(1);
  auto holder = [](Runtime* runtime, std::shared_ptr<int> kept) -> Task<> {
    auto slept = co_await sleep_for(*runtime, 1h);
    (void)slept;
    (void)kept;
  };
  asio::co_spawn(own->make_strand(), holder(own.get(), kept), asio::detached);
  own->stop();
  own.reset();
  EXPECT_EQ(kept.use_count(), 1);
}

// With a clock that a test moves by hand, waiting follows that clock.
TEST(ManualTime, SleepFollowsTheClock) {
  ManualClock clock;
  Runtime runtime(clock, 1, "manual");
  EXPECT_TRUE(block_on(runtime, sleep_for(runtime, Duration(0))));
  TaskGroup group(runtime);
  std::atomic<int> cancelled = 0;
  group.spawn(runtime.make_strand(), sleep_long(&runtime, &cancelled));
  group.close_blocking();
  EXPECT_EQ(cancelled, 2);
}

}  // namespace
}  // namespace cairn::rpc
