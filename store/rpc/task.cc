#include "store/rpc/task.h"

#include <pthread.h>

#include <atomic>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>

#include "store/rpc/completion.h"

namespace cairn::rpc {
namespace {

void name_thread(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());  // the kernel takes 15 characters
}

Error cancelled() {
  return Error(Code::kCancelled, "cancelled");
}

// A coroutine may only be cancelled on its own executor, which must therefore run one handler at a time.
asio::any_io_executor serialised(asio::any_io_executor on) {
  if (on.target<Strand>() != nullptr) return on;
  return asio::make_strand(on);
}

}  // namespace

// --- Runtime ------------------------------------------------------------------------------------

Runtime::Runtime(Clock& clock, unsigned threads, std::string name)
    : clock_(clock),
      slice_max_(dynamic_cast<SystemClock*>(&clock) != nullptr ? Duration(std::chrono::seconds(60))
                                                               : Duration(std::chrono::milliseconds(1))),
      io_(static_cast<int>(threads)),
      work_(asio::make_work_guard(io_)) {
  CHECK(threads > 0, "a runtime has at least one io thread");
  for (unsigned i = 0; i < threads; ++i) {
    threads_.emplace_back([this, thread_name = name + "-io"] {
      name_thread(thread_name);
      io_.run();
    });
  }
}

Runtime::~Runtime() {
  stop();
}

void Runtime::stop() {
  work_.reset();
  io_.stop();
  for (std::thread& thread : threads_) {
    CHECK(thread.get_id() != std::this_thread::get_id(), "Runtime::stop() is not called on an io thread");
    thread.join();
  }
  threads_.clear();
}

Duration Runtime::timer_slice(Duration left) const {
  return std::min(left, slice_max_);
}

Task<Result<>> sleep_until(Runtime& runtime, TimePoint at) {
  auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor);
  for (;;) {
    auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) co_return fail(cancelled());
    Duration left = at - runtime.clock().now();
    if (left <= Duration::zero()) co_return Result<>();
    timer.expires_after(runtime.timer_slice(left));
    boost::system::error_code ec;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return fail(cancelled());
  }
}

// --- BlockingPool -------------------------------------------------------------------------------

struct BlockingPool::State {
  const std::size_t queue_max;
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::move_only_function<void()>> queue;  // guarded by mutex
  bool stopping = false;                              // guarded by mutex
  std::vector<std::thread> threads;

  explicit State(std::size_t max) : queue_max(max) {}
  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [this] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      {
        auto job = std::move(queue.front());
        queue.pop_front();
        lock.unlock();
        job();
      }  // the job's captures die before the lock is taken again
      lock.lock();
    }
  }
};

BlockingPool::BlockingPool(unsigned threads, std::size_t queue_max, std::string name)
    : state_(std::make_unique<State>(queue_max)) {
  CHECK(threads > 0, "a pool has at least one thread");
  for (unsigned i = 0; i < threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), name] {
      name_thread(name);
      state->work();
    });
  }
}

BlockingPool::~BlockingPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->wake.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

bool BlockingPool::submit(std::move_only_function<void()>& work) {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->queue.size() >= state_->queue_max) return false;
    state_->queue.push_back(std::move(work));
  }
  state_->wake.notify_one();
  return true;
}

bool BlockingPool::post(std::function<void()> work) {
  std::move_only_function<void()> job = std::move(work);
  return submit(job);
}

// --- TaskGroup ----------------------------------------------------------------------------------

struct TaskGroup::State {
  struct Entry {
    asio::any_io_executor executor;  // all below is touched only on it
    asio::cancellation_signal signal;
    bool started = false;
    bool cancelled = false;
  };
  using Entries = std::list<std::shared_ptr<Entry>>;

  Runtime& runtime;
  std::mutex mutex;
  std::condition_variable ended;
  Entries running;                                         // guarded by mutex
  bool closing = false;                                    // guarded by mutex
  bool closed = false;                                     // guarded by mutex
  std::vector<std::unique_ptr<Completion<bool>>> waiters;  // guarded by mutex

  explicit State(Runtime& r) : runtime(r) {}

  void finished(Entries::iterator entry) {
    std::vector<std::unique_ptr<Completion<bool>>> wake;
    {
      std::lock_guard lock(mutex);
      running.erase(entry);
      if (closing && running.empty()) {
        closed = true;
        wake.swap(waiters);
        ended.notify_all();
      }
    }
    for (auto& waiter : wake) waiter->complete_later(true);
  }

  void cancel_all() {
    std::vector<std::shared_ptr<Entry>> entries;
    {
      std::lock_guard lock(mutex);
      closing = true;
      if (running.empty()) closed = true;
      entries.assign(running.begin(), running.end());
    }
    for (auto& entry : entries) {
      asio::post(entry->executor, [entry] {
        entry->cancelled = true;
        if (entry->started) entry->signal.emit(asio::cancellation_type::terminal);
      });
    }
  }
};

namespace {
Task<> run_spawned(Task<> task) {
  co_await asio::this_coro::throw_if_cancelled(false);
  co_await std::move(task);
}
}  // namespace

TaskGroup::TaskGroup(Runtime& runtime) : state_(std::make_shared<State>(runtime)) {}

TaskGroup::~TaskGroup() {
  std::lock_guard lock(state_->mutex);
  CHECK(state_->closed || (state_->running.empty() && state_->waiters.empty()) || state_->runtime.stopped(),
        "TaskGroup::close() finished before the group was destroyed");
}

bool TaskGroup::spawn(asio::any_io_executor on, Task<> task) {
  auto entry = std::make_shared<State::Entry>();
  entry->executor = serialised(std::move(on));
  State::Entries::iterator at;
  {
    std::lock_guard lock(state_->mutex);
    if (state_->closing) return false;
    at = state_->running.insert(state_->running.end(), entry);
  }
  asio::dispatch(entry->executor, [state = state_, entry, at, task = std::move(task)]() mutable {
    auto done = [state, entry, at](std::exception_ptr e) {
      if (e) {
        try {
          std::rethrow_exception(e);
        } catch (const std::exception& error) {
          check_failed("no exception", __FILE__, __LINE__,
                       std::string("a spawned task threw: ") + error.what());
        }
      }
      state->finished(at);
    };
    asio::co_spawn(entry->executor, run_spawned(std::move(task)),
                   asio::bind_cancellation_slot(entry->signal.slot(), std::move(done)));
    entry->started = true;
    if (entry->cancelled) entry->signal.emit(asio::cancellation_type::terminal);
  });
  return true;
}

Task<> TaskGroup::close() {
  auto state = state_;
  state->cancel_all();
  auto wait = [state](std::unique_ptr<Completion<bool>> waiter) {
    {
      std::lock_guard lock(state->mutex);
      if (!state->closed) {
        state->waiters.push_back(std::move(waiter));
        return;
      }
    }
    waiter->complete_later(true);
  };
  co_await suspend<bool>(std::move(wait));
}

void TaskGroup::close_blocking() {
  state_->cancel_all();
  std::unique_lock lock(state_->mutex);
  while (!state_->closed && !state_->runtime.stopped()) {
    state_->ended.wait_for(lock, std::chrono::milliseconds(50));  // wakes for a stopped runtime too
  }
}

// --- Event --------------------------------------------------------------------------------------

namespace {

// One waiting coroutine. Whoever comes first, set(), the timer or a cancellation, completes it.
struct EventWaiter : std::enable_shared_from_this<EventWaiter> {
  Runtime& runtime;
  const Deadline deadline;
  std::mutex mutex;
  std::unique_ptr<Completion<Result<>>> completion;  // guarded by mutex; null: completed
  std::optional<asio::steady_timer> timer;           // guarded by mutex

  EventWaiter(Runtime& r, Deadline d, std::unique_ptr<Completion<Result<>>> c)
      : runtime(r), deadline(d), completion(std::move(c)) {}

  void finish(Result<> result) {
    std::unique_ptr<Completion<Result<>>> waiting;
    {
      std::lock_guard lock(mutex);
      waiting = std::move(completion);
      if (timer) timer->cancel();
    }
    if (waiting) waiting->complete_later(std::move(result));
  }
  bool done() {
    std::lock_guard lock(mutex);
    return completion == nullptr;
  }
  void arm() {
    std::unique_lock lock(mutex);
    if (completion == nullptr) return;
    Duration left = deadline.left(runtime.clock());
    if (left <= Duration::zero()) {
      lock.unlock();
      finish(fail(Code::kTimeout, "timed out waiting for an event"));
      return;
    }
    if (!timer) timer.emplace(runtime.executor());
    timer->expires_after(runtime.timer_slice(left));
    timer->async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
      if (!ec) self->arm();
    });
  }
};

}  // namespace

struct Event::State {
  Runtime& runtime;
  std::mutex mutex;
  bool set = false;                                   // guarded by mutex
  std::vector<std::shared_ptr<EventWaiter>> waiters;  // guarded by mutex

  explicit State(Runtime& r) : runtime(r) {}

  template <class Handler>
  void wait(Handler handler, Deadline deadline) {
    auto slot = asio::get_associated_cancellation_slot(handler);
    bool refused = already_cancelled(handler);
    auto waiter =
        std::make_shared<EventWaiter>(runtime, deadline, make_completion<Result<>>(std::move(handler)));
    if (refused) {
      waiter->finish(fail(cancelled()));
      return;
    }
    if (slot.is_connected()) {
      slot.assign([weak = std::weak_ptr(waiter)](asio::cancellation_type) {
        if (auto waiter = weak.lock()) waiter->finish(fail(cancelled()));
      });
    }
    if (deadline != Deadline::never()) waiter->arm();
    {
      std::lock_guard lock(mutex);
      if (!set) {
        // Those that timed out or were cancelled leave here, so that the list stays as short as what waits.
        std::erase_if(waiters, [](auto& other) { return other->done(); });
        waiters.push_back(waiter);
        return;
      }
    }
    waiter->finish({});
  }
};

Event::Event(Runtime& runtime) : state_(std::make_shared<State>(runtime)) {}

Event::~Event() {
  std::vector<std::shared_ptr<EventWaiter>> waiters;
  {
    std::lock_guard lock(state_->mutex);
    waiters.swap(state_->waiters);
  }
  for (auto& waiter : waiters) waiter->finish(fail(cancelled()));
}

void Event::set() {
  std::vector<std::shared_ptr<EventWaiter>> waiters;
  {
    std::lock_guard lock(state_->mutex);
    state_->set = true;
    waiters.swap(state_->waiters);
  }
  for (auto& waiter : waiters) waiter->finish({});
}

void Event::reset() {
  std::lock_guard lock(state_->mutex);
  state_->set = false;
}

bool Event::is_set() const {
  std::lock_guard lock(state_->mutex);
  return state_->set;
}

Task<Result<>> Event::wait(Deadline deadline) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(Result<>)>(
      [](auto handler, std::shared_ptr<State> state, Deadline deadline) {
        state->wait(std::move(handler), deadline);
      },
      asio::use_awaitable, state_, deadline);
}

}  // namespace cairn::rpc
