// An executor whose dispatch() runs at once, on the thread that asks; everything posted goes to the loop.
//
// For threads outside the loop that start a coroutine which may run on any thread: its first part, up to the
// first wait, needs no other thread to be woken. Never for a coroutine that relies on a strand.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <utility>

namespace cairn::rpc {

class InlineExecutor {
 public:
  explicit InlineExecutor(boost::asio::io_context& io) : loop_(io.get_executor()) {}

  template <class F>
  void execute(F&& f) const {
    if (inline_) {
      std::forward<F>(f)();
    } else {
      boost::asio::require(loop_, boost::asio::execution::blocking.never).execute(std::forward<F>(f));
    }
  }

  boost::asio::execution_context& query(boost::asio::execution::context_t) const noexcept {
    return loop_.context();
  }
  boost::asio::execution::blocking_t query(boost::asio::execution::blocking_t) const noexcept {
    if (inline_) return boost::asio::execution::blocking.possibly;
    return boost::asio::execution::blocking.never;
  }
  InlineExecutor require(boost::asio::execution::blocking_t::possibly_t) const noexcept {
    return {loop_, true};
  }
  InlineExecutor require(boost::asio::execution::blocking_t::never_t) const noexcept {
    return {loop_, false};
  }
  bool operator==(const InlineExecutor&) const noexcept = default;

 private:
  InlineExecutor(boost::asio::io_context::executor_type loop, bool is_inline)
      : loop_(loop), inline_(is_inline) {}

  boost::asio::io_context::executor_type loop_;
  bool inline_ = false;
};

}  // namespace cairn::rpc
