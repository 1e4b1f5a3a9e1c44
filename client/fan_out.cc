#include "client/fan_out.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <mutex>

namespace cairn::client {
namespace {

struct Work {
  Work(rpc::Runtime& runtime, std::vector<rpc::Task<Result<>>> all)
      : done(runtime), tasks(std::move(all)), left(tasks.size()) {}
  rpc::Event done;
  std::mutex mutex;
  std::vector<rpc::Task<Result<>>> tasks;  // guarded by mutex, as all below
  std::size_t next = 0;
  std::size_t left;
  std::size_t failed_index = SIZE_MAX;
  std::optional<Error> error;
};

rpc::Task<> work_off(std::shared_ptr<Work> work) {
  for (;;) {
    std::size_t index = 0;
    std::optional<rpc::Task<Result<>>> task;
    {
      std::lock_guard lock(work->mutex);
      if (work->next == work->tasks.size()) co_return;
      index = work->next++;
      task.emplace(std::move(work->tasks[index]));
    }
    auto result = co_await std::move(*task);
    std::lock_guard lock(work->mutex);
    if (!result && index < work->failed_index) {
      work->failed_index = index;
      work->error.emplace(std::move(result.error()));
    }
    if (--work->left == 0) work->done.set();
  }
}

}  // namespace

rpc::Task<Result<>> run_all(rpc::Runtime& runtime, std::vector<rpc::Task<Result<>>> tasks, unsigned width) {
  if (tasks.empty()) co_return Result<>{};
  if (tasks.size() == 1) {
    auto only = std::move(tasks.front());
    auto result = co_await std::move(only);
    co_return result;
  }
  auto work = std::make_shared<Work>(runtime, std::move(tasks));
  const std::size_t workers = std::min<std::size_t>(std::max(1u, width), work->left);
  for (std::size_t i = 0; i < workers; ++i) {
    rpc::asio::co_spawn(runtime.executor(), work_off(work), rpc::asio::detached);
  }
  // Not cancellable: the tasks refer to the caller's data.
  co_await rpc::asio::this_coro::reset_cancellation_state(rpc::asio::disable_cancellation());
  auto waited = co_await work->done.wait(Deadline::never());
  if (!waited) co_return waited;
  std::lock_guard lock(work->mutex);
  if (work->error) co_return fail(std::move(*work->error));
  co_return Result<>{};
}

}  // namespace cairn::client
