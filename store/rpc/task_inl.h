// Templates of task.h.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <functional>
#include <future>
#include <optional>
#include <utility>

namespace cairn::rpc {

namespace detail {

template <class T>
Result<T> call_guarded(std::function<Result<T>()>& work) {
  try {
    return work();
  } catch (const std::exception& e) {
    return fail(Code::kInternal, std::string("blocking work threw: ") + e.what());
  }
}

template <class T>
Task<> store_result(Task<T> task, std::optional<T>* out) {
  co_await asio::this_coro::throw_if_cancelled(false);
  T value = co_await std::move(task);
  out->emplace(std::move(value));
}

}  // namespace detail

template <class T>
Task<Result<T>> BlockingPool::run(std::function<Result<T>()> work) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(Result<T>)>(
      [this](auto handler, std::function<Result<T>()> work) {
        auto executor = asio::get_associated_executor(handler);
        // Shared with the refusal below: submit() leaves the job untouched when the queue is full.
        std::move_only_function<void()> job;
        auto finish = [executor](decltype(handler) handler, Result<T> result) {
          asio::post(executor, [handler = std::move(handler), result = std::move(result)]() mutable {
            handler(std::move(result));
          });
        };
        auto waiting = std::make_shared<decltype(handler)>(std::move(handler));
        job = [waiting, work = std::move(work), finish]() mutable {
          finish(std::move(*waiting), detail::call_guarded<T>(work));
        };
        if (!submit(job)) {
          finish(std::move(*waiting),
                 fail(Code::kOverloaded, "the queue of blocking work is full; try again later"));
        }
      },
      asio::use_awaitable, std::move(work));
}

template <class T>
T block_on(Runtime& runtime, Task<T> task) {
  std::promise<void> done;
  auto ended = [&done](std::exception_ptr e) {
    if (e) {
      done.set_exception(e);
    } else {
      done.set_value();
    }
  };
  if constexpr (std::is_void_v<T>) {
    asio::co_spawn(runtime.make_strand(), std::move(task), ended);
    done.get_future().get();
  } else {
    std::optional<T> out;
    asio::co_spawn(runtime.make_strand(), detail::store_result<T>(std::move(task), &out), ended);
    done.get_future().get();
    return std::move(*out);
  }
}

}  // namespace cairn::rpc
