// Executor::run: bridges a coroutine and the executor thread. Included by meta/executor.h.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <optional>
#include <utility>

namespace cairn::meta {

template <class T>
rpc::Task<Result<T>> Executor::run(std::function<Result<T>(Txn&)> operation, Durability durability) {
  // Shared with the executor: this frame may be destroyed (runtime stopped) while the operation is still
  // queued.
  struct Slot {
    std::optional<Result<T>> value;
    std::optional<Error> failure;
  };
  auto slot = std::make_shared<Slot>();
  std::function<Result<>(Txn&)> erased = [slot, operation = std::move(operation)](Txn& txn) -> Result<> {
    slot->value.emplace(operation(txn));
    if (!*slot->value) return std::unexpected(slot->value->error());
    return {};
  };
  auto start = [this, slot, durability, erased = std::move(erased)](auto handler) mutable {
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    submit(std::move(erased), durability, [slot, shared](Result<> result) {
      if (!result) slot->failure.emplace(std::move(result.error()));
      auto on = rpc::asio::get_associated_executor(*shared);
      rpc::asio::post(on, [shared] { std::move (*shared)(); });
    });
  };
  auto waiting = rpc::asio::async_initiate<const rpc::asio::use_awaitable_t<>&, void()>(
      std::move(start), rpc::asio::use_awaitable);
  co_await std::move(waiting);
  if (slot->failure) co_return std::unexpected(std::move(*slot->failure));
  co_return std::move(*slot->value);
}

}  // namespace cairn::meta
