// The serving half of a connection: requests in, replies out.
#include <fmt/format.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>

#include "store/base/log.h"
#include "store/rpc/live_connection.h"

namespace cairn::rpc {

Result<> LiveConnection::on_request(Frame frame) {
  const FrameHeader& header = frame.header;
  if (handlers_.contains(header.id)) {
    return fail(Code::kProtocol, fmt::format("request {} is sent a second time", header.id));
  }
  Incoming incoming;
  incoming.id = header.id;
  incoming.payload_bytes = header.payload_bytes;
  if (limits_.clients_payload && peer_role_ == Role::kClient && header.payload_bytes > 0)
    incoming.held = limits_.clients_payload->take(header.payload_bytes);
  incoming.request.method = header.method;
  incoming.request.deadline = Deadline::never();
  if (header.deadline_ms != 0) {
    incoming.request.deadline =
        Deadline::after(runtime_.clock(), std::chrono::milliseconds(std::uint64_t{header.deadline_ms}));
  }
  incoming.request.message = InMessage(std::move(frame.body), std::move(frame.payload));
  incoming.request.peer = shared_from_this();
  bool park;
  {
    std::lock_guard lock(mutex_);
    if (goodbye_sent_ || ended_) return {};  // the sender learns from our goodbye that it was not taken
    ++unanswered_;
    unanswered_payload_ += incoming.payload_bytes;
    park = !parked_.empty() || queued_.size() + writing_size_ > limits_.payload_bytes_in_flight;
    if (park) watch_writes_ = true;
  }
  ++requests_taken_;
  handlers_.try_emplace(incoming.id);
  if (park) {
    parked_.push_back(std::move(incoming));
  } else {
    start_handler(std::move(incoming));
  }
  return {};
}

void LiveConnection::start_handler(Incoming incoming) {
  const std::uint64_t id = incoming.id;
  asio::cancellation_slot slot = handlers_.at(id).slot();
  asio::co_spawn(strand_, serve(self(), alive_, std::move(incoming)),
                 asio::bind_cancellation_slot(slot, [self = self(), id](std::exception_ptr e) {
                   CHECK(e == nullptr, "a request handler's exceptions are caught in serve()");
                   self->handlers_.erase(id);
                 }));
}

void LiveConnection::start_parked() {
  while (!parked_.empty()) {
    {
      std::lock_guard lock(mutex_);
      if (ended_) return;
      if (queued_.size() + writing_size_ > limits_.payload_bytes_in_flight) {
        watch_writes_ = true;
        return;
      }
    }
    Incoming incoming = std::move(parked_.front());
    parked_.pop_front();
    start_handler(std::move(incoming));
  }
}

Task<> LiveConnection::serve(std::shared_ptr<LiveConnection> self, [[maybe_unused]] Alive alive,
                             Incoming incoming) {
  co_await asio::this_coro::throw_if_cancelled(false);
  const std::uint16_t method = incoming.request.method;
  std::optional<Error> malformed;
  std::optional<Result<OutMessage>> reply;
  try {
    if (self->service_ == nullptr) {
      reply.emplace(fail(Code::kUnimplemented, "this side of the connection serves no requests"));
    } else {
      Result<OutMessage> handled = co_await self->service_->handle(std::move(incoming.request));
      reply.emplace(std::move(handled));
    }
  } catch (const kj::Exception& e) {
    malformed.emplace(Code::kProtocol, fmt::format("{}: malformed request: {}", method_name(method),
                                                   e.getDescription().cStr()));
    reply.emplace(fail(*malformed));
  } catch (const std::exception& e) {
    log_error("rpc_handler_threw", "method={} peer={} what={}", method_name(method), self->address_,
              log_quote(e.what()));
    reply.emplace(
        fail(Code::kInternal, fmt::format("{}: internal error: {}", method_name(method), e.what())));
  }
  self->send_reply(incoming.id, incoming.payload_bytes, std::move(*reply));
  if (malformed) {
    self->flush_now();
    self->end(std::move(*malformed));
  }
}

void LiveConnection::send_reply(std::uint64_t id, std::size_t payload_bytes, Result<OutMessage> reply) {
  if (reply) {
    if (auto sendable = check_sendable(*reply); !sendable) {
      log_error("rpc_reply_too_large", "peer={} reason={}", address_, log_quote(sendable.error().message()));
      reply = fail(Code::kInternal, "the reply cannot be sent: " + sendable.error().message());
    }
  }
  FrameHeader header{.kind = FrameKind::kReply, .id = id};
  OutMessage failure;
  if (reply) {
    header.payload_checksum = payload_checksum(reply->payload);
  } else {
    header.status = static_cast<std::uint16_t>(reply.error().code());
    failure.body<schema::Failure>().setMessage(reply.error().message());
  }
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    queue_locked(header, reply ? &*reply : &failure);
    queued_.add_answered(payload_bytes);
  }
  flush();
}

void LiveConnection::on_cancel(std::uint64_t id) {
  auto it = handlers_.find(id);
  if (it == handlers_.end()) return;  // answered already
  for (auto parked = parked_.begin(); parked != parked_.end(); ++parked) {
    if (parked->id != id) continue;
    send_reply(id, parked->payload_bytes, fail(Code::kCancelled, "cancelled before it began"));
    parked_.erase(parked);
    handlers_.erase(id);
    return;
  }
  it->second.emit(asio::cancellation_type::terminal);
}

bool LiveConnection::must_pause() {
  std::lock_guard lock(mutex_);
  paused_ = !ended_ && (unanswered_ > limits_.requests_in_flight ||
                        unanswered_payload_ > std::max(limits_.payload_bytes_in_flight, kPayloadMax));
  if (!paused_ && !ended_ && unanswered_payload_ > 0 && limits_.clients_payload &&
      peer_role_ == Role::kClient) {
    if (awaits_room_) {
      paused_ = limits_.clients_payload->full();
    } else {
      paused_ = awaits_room_ = limits_.clients_payload->wait_for_room([weak = weak_from_this()] {
        auto self = std::static_pointer_cast<LiveConnection>(weak.lock());
        if (!self) return;
        asio::post(self->strand_, [self] {
          self->awaits_room_ = false;
          self->unpaused_.set();
        });
      });
    }
  }
  if (paused_) watch_writes_ = true;
  return paused_;
}

}  // namespace cairn::rpc
