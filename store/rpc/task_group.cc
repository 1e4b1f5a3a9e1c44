#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <condition_variable>
#include <list>
#include <mutex>

#include "store/rpc/completion.h"
#include "store/rpc/task.h"

namespace cairn::rpc {
namespace {

// A coroutine may only be cancelled on its own executor, which must therefore run one handler at a time.
asio::any_io_executor serialised(asio::any_io_executor on) {
  if (on.target<Strand>() != nullptr) return on;
  return asio::make_strand(on);
}

Task<> run_spawned(Task<> task) {
  co_await asio::this_coro::throw_if_cancelled(false);
  co_await std::move(task);
}

}  // namespace

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
  // Posted: spawn() never runs the task inside itself, where the caller may hold a lock.
  asio::post(entry->executor, [state = state_, entry, at, task = std::move(task)]() mutable {
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

}  // namespace cairn::rpc
