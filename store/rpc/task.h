// Task<T>: a coroutine on Boost.Asio, the only event loop in Cairn. Runtime: the loop, its threads, clock and
// waiting.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "store/base/clock.h"
#include "store/base/result.h"

namespace cairn::rpc {

namespace asio = boost::asio;
class EventRegistry;
template <class T = void>
using Task = asio::awaitable<T>;
using Strand = asio::strand<asio::any_io_executor>;

// The event loop: `threads` io threads, which only run short handlers. Construct first, destroy last.
// Thread-safe. stop() refuses new work, ends the loop and joins; tasks still suspended are destroyed with it.
class Runtime {
 public:
  Runtime(Clock& clock, unsigned threads, std::string name);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  asio::any_io_executor executor() { return io_.get_executor(); }
  Strand make_strand() { return asio::make_strand(executor()); }
  // See store/rpc/inline_executor.h.
  asio::any_io_executor inline_executor();
  Clock& clock() { return clock_; }
  void stop();
  bool stopped() const { return io_.stopped(); }
  // How long to let the loop's own timer run before looking at clock() again, `left` before something is due.
  // Short when the clock is not the system's (a test moves it by hand).
  Duration timer_slice(Duration left) const;

 private:
  friend class Event;
  Clock& clock_;
  const Duration slice_max_;
  const std::shared_ptr<EventRegistry> events_;
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<std::thread> threads_;
};

// Ends at `at` of the runtime's clock, or when the awaiting coroutine is cancelled (kCancelled).
Task<Result<>> sleep_until(Runtime& runtime, TimePoint at);
inline Task<Result<>> sleep_for(Runtime& runtime, Duration d) {
  return sleep_until(runtime, runtime.clock().now() + d);
}

// A bounded pool of threads for work that blocks (RocksDB, chunk files). run() resumes the caller on its own
// executor. More than `queue_max` waiting: kOverloaded. Destroying it finishes what is queued.
class BlockingPool {
 public:
  BlockingPool(unsigned threads, std::size_t queue_max, std::string name);
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  // `work` is called once on a pool thread. Result<T>'s error kOverloaded: it was not called.
  // A std::exception out of `work` becomes kInternal.
  template <class T>
  Task<Result<T>> run(std::function<Result<T>()> work);
  // For callers that are not coroutines. False: queue full, not called.
  bool post(std::function<void()> work);

 private:
  struct State;
  bool submit(std::move_only_function<void()>& work);  // takes `work` only when true
  std::unique_ptr<State> state_;
};

// Owns background tasks: every spawned task has an owner that waits for it. spawn() after close() is refused
// (false). An exception out of a task is a CHECK failure: tasks return Result and handle it. A cancelled task
// is not unwound by an exception: what it awaits (sleep_until, Event::wait, call()) ends with kCancelled, at
// once from then on. `on` should be a strand; any other executor gets one made on top, so that cancelling is
// safe.
class TaskGroup {
 public:
  explicit TaskGroup(Runtime& runtime);
  ~TaskGroup();  // CHECKs that close() has finished
  TaskGroup(const TaskGroup&) = delete;
  bool spawn(asio::any_io_executor on, Task<> task);
  // Cancels (terminal cancellation) all tasks and ends when each has ended.
  Task<> close();
  void close_blocking();  // from a thread outside the runtime; returns early if the runtime was stopped

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Runs a task on the runtime and blocks this (non-runtime) thread until it ends.
template <class T>
T block_on(Runtime& runtime, Task<T> task);

// A one-shot or repeated wake-up between tasks of different strands: set() wakes every waiter; wait() after
// set() returns at once until reset(). Thread-safe.
class Event {
 public:
  explicit Event(Runtime& runtime);
  ~Event();
  void set();
  void reset();
  bool is_set() const;
  Task<Result<>> wait(Deadline deadline);  // kTimeout, kCancelled

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cairn::rpc

#include "store/rpc/task_inl.h"
