// A suspended coroutine waiting for a T, type-erased so that it can be kept in a table. Move it out before
// completing; destroying it without completing destroys the coroutine (only right when the loop is gone).
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <utility>

#include "store/rpc/task.h"

namespace cairn::rpc {

template <class T>
class Completion {
 public:
  virtual ~Completion() = default;
  // Resumes the waiter on its own executor: at once, on this thread, when that is allowed. Call it once,
  // last, and with no lock held.
  virtual void complete(T value) = 0;
  // The same, but never inside this call.
  virtual void complete_later(T value) = 0;
};

template <class T, class Handler>
class CompletionOf final : public Completion<T> {
 public:
  explicit CompletionOf(Handler handler) : handler_(std::move(handler)) {}
  void complete(T value) override {
    auto executor = asio::get_associated_executor(handler_);
    asio::dispatch(executor, [handler = std::move(handler_), value = std::move(value)]() mutable {
      handler(std::move(value));
    });
  }
  void complete_later(T value) override {
    auto executor = asio::get_associated_executor(handler_);
    asio::post(executor, [handler = std::move(handler_), value = std::move(value)]() mutable {
      handler(std::move(value));
    });
  }

 private:
  Handler handler_;
};

// True when the coroutine behind an Asio handler was cancelled before it began to wait: its slot will not say
// so again.
template <class Handler>
bool already_cancelled(Handler& handler) {
  if constexpr (requires { handler.get_cancellation_state(); }) {
    return handler.get_cancellation_state().cancelled() != asio::cancellation_type::none;
  } else {
    return false;
  }
}

template <class T, class Handler>
std::unique_ptr<Completion<T>> make_completion(Handler handler) {
  return std::make_unique<CompletionOf<T, Handler>>(std::move(handler));
}

// Suspends the calling coroutine; `start(std::unique_ptr<Completion<T>>)` arranges for its completion. Not
// cancellable.
template <class T, class Start>
Task<T> suspend(Start start) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(T)>(
      [](auto handler, Start start) { start(make_completion<T>(std::move(handler))); }, asio::use_awaitable,
      std::move(start));
}

}  // namespace cairn::rpc
