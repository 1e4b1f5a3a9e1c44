#include "store/rpc/task.h"

#include <pthread.h>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "store/rpc/event_registry.h"
#include "store/rpc/inline_executor.h"

#ifdef __SANITIZE_THREAD__
// any_io_executor counts its references with an atomic_thread_fence, which the thread sanitizer does not see:
// it takes the last release for a race. Here, because this file is in every program that uses the loop.
extern "C" const char* __tsan_default_suppressions() {
  return "race:boost::asio::execution::detail::shared_target_executor\n";
}
#endif

namespace cairn::rpc {

Runtime::Runtime(Clock& clock, unsigned threads, std::string name)
    : clock_(clock),
      slice_max_(dynamic_cast<SystemClock*>(&clock) != nullptr ? Duration(std::chrono::seconds(60))
                                                               : Duration(std::chrono::milliseconds(1))),
      events_(std::make_shared<EventRegistry>()),
      io_(static_cast<int>(threads)),
      work_(asio::make_work_guard(io_)) {
  CHECK(threads > 0, "a runtime has at least one io thread");
  for (unsigned i = 0; i < threads; ++i) {
    threads_.emplace_back([this, thread_name = name + "-io"] {
      pthread_setname_np(pthread_self(), thread_name.substr(0, 15).c_str());  // the kernel takes 15
      io_.run();
    });
  }
}

Runtime::~Runtime() {
  stop();
  events_->drop_waiters();
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

asio::any_io_executor Runtime::inline_executor() {
  return InlineExecutor(io_);
}

Duration Runtime::timer_slice(Duration left) const {
  return std::min(left, slice_max_);
}

Task<Result<>> sleep_until(Runtime& runtime, TimePoint at) {
  auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor);
  for (;;) {
    auto state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none)
      co_return fail(Code::kCancelled, "cancelled while waiting");
    Duration left = at - runtime.clock().now();
    if (left <= Duration::zero()) co_return Result<>();
    timer.expires_after(runtime.timer_slice(left));
    boost::system::error_code ec;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return fail(Code::kCancelled, "cancelled while waiting");
  }
}

}  // namespace cairn::rpc
