// The calling half of a connection: requests out, replies in.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "store/rpc/live_connection.h"

namespace cairn::rpc {
namespace {

// 0 on the wire means none, so a deadline is at least 1 ms away.
std::uint32_t milliseconds_left(Deadline deadline, TimePoint now) {
  if (deadline == Deadline::never()) return 0;
  const std::int64_t ms = (deadline.at - now).count() / 1'000'000;
  return static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(ms, 1, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

Task<Result<InMessage>> LiveConnection::call(std::uint16_t method, OutMessage request, Deadline deadline) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(Reply)>(
      [](auto handler, std::shared_ptr<LiveConnection> self, std::uint16_t method, OutMessage request,
         Deadline deadline) {
        auto slot = asio::get_associated_cancellation_slot(handler);
        const bool cancelled = already_cancelled(handler);
        auto waiter = make_completion<Reply>(std::move(handler));
        if (cancelled) {
          waiter->complete_later(fail(Code::kCancelled, fmt::format("{} cancelled", method_name(method))));
          return;
        }
        const std::uint64_t id = self->next_id_++;
        // Before the call starts: the reply may resume the caller on another thread before start_call()
        // returns.
        if (slot.is_connected()) {
          slot.assign([weak = std::weak_ptr(self), id](asio::cancellation_type) {
            if (auto self = weak.lock()) self->cancel_call(id);
          });
        }
        self->start_call(id, method, std::move(request), deadline, std::move(waiter));
      },
      asio::use_awaitable, self(), method, std::move(request), deadline);
}

void LiveConnection::start_call(std::uint64_t id, std::uint16_t method, OutMessage request, Deadline deadline,
                                std::unique_ptr<Completion<Reply>> waiter) {
  if (auto sendable = check_sendable(request); !sendable) {
    waiter->complete_later(fail(sendable.error().with(method_name(method))));
    return;
  }
  Call call;
  call.deadline = deadline;
  call.method = method;
  call.payload_bytes = request.payload.size();
  call.payload_checksum = payload_checksum(request.payload);
  const TimePoint now = runtime_.clock().now();
  std::optional<Error> refused;
  bool sooner = false;
  {
    std::lock_guard lock(mutex_);
    if (!open_) {
      refused.emplace(Code::kUnavailable,
                      fmt::format("{}: {} was not sent: {}", address_, method_name(method),
                                  end_error_ ? end_error_->message() : "the peer is stopping"));
    } else if (now >= deadline.at) {
      refused.emplace(Code::kTimeout,
                      fmt::format("{}: {} was not sent before its deadline", address_, method_name(method)));
    } else if (held_count_ >= limits_.queue_max) {
      refused.emplace(Code::kOverloaded,
                      fmt::format("{}: {} calls wait to be sent; try again later", address_, held_count_));
    } else {
      call.waiter = std::move(waiter);
      const bool send = held_count_ == 0 && window_open_locked(call.payload_bytes);
      Call& kept = calls_.emplace(id, std::move(call)).first->second;
      if (send) {
        send_call_locked(id, kept, request, now);
      } else {
        kept.held.emplace(std::move(request));
        held_.push_back(id);
        ++held_count_;
      }
      sooner = deadline.at < timer_at_;
      if (sooner) timer_at_ = deadline.at;
    }
  }
  if (refused) {
    waiter->complete_later(fail(std::move(*refused)));
    return;
  }
  if (sooner) {
    asio::post(strand_, [self = self()] { self->set_timer(); });
  }
  flush();
}

bool LiveConnection::window_open_locked(std::size_t payload_bytes) const {
  if (calls_in_flight_ >= window_requests_) return false;
  return calls_payload_ == 0 || calls_payload_ + payload_bytes <= window_payload_;
}

void LiveConnection::send_call_locked(std::uint64_t id, Call& call, OutMessage& request, TimePoint now) {
  call.sent = ++calls_sent_;
  ++calls_in_flight_;
  calls_payload_ += call.payload_bytes;
  FrameHeader header{.kind = FrameKind::kRequest, .method = call.method, .id = id};
  header.deadline_ms = milliseconds_left(call.deadline, now);
  header.payload_checksum = call.payload_checksum;
  queue_locked(header, &request);
}

void LiveConnection::send_held_locked() {
  while (!held_.empty()) {
    auto it = calls_.find(held_.front());
    if (it != calls_.end()) {
      if (!window_open_locked(it->second.payload_bytes)) return;
      OutMessage request = std::move(*it->second.held);
      it->second.held.reset();
      send_call_locked(it->first, it->second, request, runtime_.clock().now());
      --held_count_;
    }
    held_.pop_front();
  }
}

void LiveConnection::cancel_call(std::uint64_t id) {
  std::unique_ptr<Completion<Reply>> waiter;
  std::uint16_t method = 0;
  {
    std::lock_guard lock(mutex_);
    auto it = calls_.find(id);
    if (it == calls_.end()) return;
    waiter = std::move(it->second.waiter);
    method = it->second.method;
    if (it->second.sent == 0) {
      calls_.erase(it);
      --held_count_;
    } else if (waiter) {
      queue_locked({.kind = FrameKind::kCancel, .id = id}, nullptr);
    }
  }
  if (waiter) {
    waiter->complete_later(
        fail(Code::kCancelled, fmt::format("{}: {} cancelled", address_, method_name(method))));
  }
  flush();
}

// Ends the calls whose deadline passed, and finds when to look again.
void LiveConnection::expire_calls(TimePoint now) {
  std::vector<std::pair<std::unique_ptr<Completion<Reply>>, Error>> late;
  {
    std::lock_guard lock(mutex_);
    timer_at_ = next_look_;
    for (auto it = calls_.begin(); it != calls_.end();) {
      auto& [id, call] = *it;
      if (!call.waiter || call.deadline.at > now) {
        if (call.waiter) timer_at_ = std::min(timer_at_, call.deadline.at);
        ++it;
      } else if (call.sent == 0) {
        late.emplace_back(std::move(call.waiter),
                          Error(Code::kTimeout, fmt::format("{}: {} was not sent before its deadline",
                                                            address_, method_name(call.method))));
        it = calls_.erase(it);
        --held_count_;
      } else {
        late.emplace_back(std::move(call.waiter),
                          Error(Code::kMaybeApplied, fmt::format("{}: no reply to {} before its deadline",
                                                                 address_, method_name(call.method))));
        queue_locked({.kind = FrameKind::kCancel, .id = id}, nullptr);
        ++it;
      }
    }
  }
  for (auto& [waiter, error] : late) waiter->complete_later(fail(std::move(error)));
}

Result<> LiveConnection::on_reply(Frame frame) {
  const FrameHeader& header = frame.header;
  InMessage message(std::move(frame.body), std::move(frame.payload));
  Reply reply;
  if (header.status != 0) {
    reply = fail(code_from_number(header.status),
                 std::string(message.body<schema::Failure>().getMessage().cStr()));
  } else {
    reply = std::move(message);
  }
  std::unique_ptr<Completion<Reply>> waiter;
  bool done;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return {};
    auto it = calls_.find(header.id);
    if (it == calls_.end() || it->second.sent == 0) {
      return fail(Code::kProtocol, fmt::format("a reply to request {}, which was not sent", header.id));
    }
    waiter = std::move(it->second.waiter);
    --calls_in_flight_;
    calls_payload_ -= it->second.payload_bytes;
    calls_.erase(it);
    send_held_locked();
    done = goodbye_sent_ && calls_.empty();
  }
  if (waiter) waiter->complete(std::move(reply));
  if (done) close_if_done();
  return {};
}

void LiveConnection::on_goodbye(std::uint64_t taken) {
  std::vector<std::unique_ptr<Completion<Reply>>> refused;
  {
    std::lock_guard lock(mutex_);
    goodbye_received_ = true;
    open_ = false;
    for (auto it = calls_.begin(); it != calls_.end();) {
      Call& call = it->second;
      if (call.sent != 0 && call.sent <= taken) {
        ++it;
        continue;
      }
      if (call.sent != 0) {
        --calls_in_flight_;
        calls_payload_ -= call.payload_bytes;
      }
      if (call.waiter) refused.push_back(std::move(call.waiter));
      it = calls_.erase(it);
    }
    held_.clear();
    held_count_ = 0;
  }
  for (auto& waiter : refused) {
    waiter->complete_later(
        fail(Code::kUnavailable, address_ + ": the peer is stopping and did not take the request"));
  }
}

}  // namespace cairn::rpc
