#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>
#include <mutex>
#include <optional>

#include "store/rpc/completion.h"
#include "store/rpc/event_registry.h"
#include "store/rpc/task.h"

namespace cairn::rpc {
namespace {

Error cancelled() {
  return Error(Code::kCancelled, "cancelled while waiting for an event");
}

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

struct Event::State final : EventRegistry::Member {
  Runtime& runtime;
  const std::shared_ptr<EventRegistry> registry;
  std::mutex mutex;
  bool set = false;                                   // guarded by mutex
  std::vector<std::shared_ptr<EventWaiter>> waiters;  // guarded by mutex

  State(Runtime& r, std::shared_ptr<EventRegistry> all) : runtime(r), registry(std::move(all)) {
    registry->add(*this);
  }
  ~State() { registry->remove(*this); }

  void drop_waiters() override {
    std::vector<std::shared_ptr<EventWaiter>> dropped;
    std::lock_guard lock(mutex);
    dropped.swap(waiters);
  }

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

Event::Event(Runtime& runtime) : state_(std::make_shared<State>(runtime, runtime.events_)) {}

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
