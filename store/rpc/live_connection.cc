#include "store/rpc/live_connection.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>

#include "store/base/log.h"

namespace cairn::rpc {
namespace {

// The connection whose frames this thread is handling: what they make it send is written together at the end.
thread_local const LiveConnection* t_reading = nullptr;

class Corked {
 public:
  explicit Corked(const LiveConnection* connection) : before_(std::exchange(t_reading, connection)) {}
  ~Corked() { t_reading = before_; }

 private:
  const LiveConnection* const before_;
};

constexpr int kFramesPerWrite = 32;  // of a batch; bounds how long the first answer waits for the last
constexpr int kDirectWrites = 4;     // by one caller, before its thread hands the queue over

bool says_hello(FrameKind kind) {
  return kind == FrameKind::kHello || kind == FrameKind::kHelloReply;
}

}  // namespace

// In the frame of run(): when the loop goes away under it, the waiting callers (whose frames hold this
// connection) must go too, or they would keep each other for ever.
class LiveConnection::EndGuard {
 public:
  explicit EndGuard(LiveConnection& connection) : connection_(connection) {}
  ~EndGuard() {
    decltype(connection_.calls_) calls;
    std::lock_guard lock(connection_.mutex_);
    connection_.ended_ = true;
    connection_.open_ = false;
    calls.swap(connection_.calls_);
  }

 private:
  LiveConnection& connection_;
};

LiveConnection::LiveConnection(const LiveSetup& setup, std::unique_ptr<Stream> stream, Side side)
    : runtime_(*setup.runtime),
      identity_(setup.identity),
      service_(setup.service),
      limits_(setup.limits),
      stream_(std::move(stream)),
      strand_(stream_->executor()),
      side_(side),
      address_(stream_->peer()),
      next_look_(runtime_.clock().now() + limits_.hello_timeout),
      timer_at_(next_look_),
      alive_(std::make_shared<LiveCount::Token>(setup.live)),
      timer_(strand_),
      unpaused_(runtime_) {}

LiveConnection::~LiveConnection() {
  stream_->close();
}

bool LiveConnection::connected() const {
  return open_.load(std::memory_order_acquire);
}

void LiveConnection::close(std::string reason) {
  end(Error(Code::kCancelled, "closed here: " + reason));
}

Error LiveConnection::end_reason() const {
  std::lock_guard lock(mutex_);
  return end_error_.value_or(Error(Code::kCancelled, address_ + ": the runtime was stopped"));
}

void LiveConnection::on_close(std::function<void(const Error&)> callback) {
  {
    std::lock_guard lock(mutex_);
    if (!ended_) {
      on_close_ = std::move(callback);
      return;
    }
  }
  callback(end_reason());
}

// --- Beginning, reading, ending -----------------------------------------------------------------

Task<Result<>> LiveConnection::greet(std::shared_ptr<LiveConnection> self) {
  self->set_timer();
  Result<> greeted;
  if (self->side_ == Side::kAccepting) {
    greeted = co_await self->greet_accepting();
  } else {
    greeted = co_await self->greet_connecting();
  }
  if (!greeted) {
    self->end(greeted.error());
    self->alive_.reset();
    // What ended the stream under the greeting (no hello in time, close()) says more than the broken read.
    co_return fail(self->end_reason());
  }
  {
    std::lock_guard lock(self->mutex_);
    self->next_look_ = self->runtime_.clock().now() + self->limits_.idle_ping;
    self->timer_at_ = std::min(self->timer_at_, self->next_look_);
  }
  self->set_timer();
  co_return Result<>();
}

Task<> LiveConnection::run(std::shared_ptr<LiveConnection> self) {
  EndGuard guard(*self);
  Alive alive = std::move(self->alive_);
  self->alive_ = alive;
  for (;;) {
    Result<> handled = self->read_batch();
    self->flush_now();
    if (!handled) {
      self->end(handled.error());
      break;
    }
    while (self->must_pause()) {
      self->unpaused_.reset();
      if (!self->must_pause()) break;
      auto resumed = co_await self->unpaused_.wait(Deadline::never());
      if (!resumed) break;
    }
    MutableBytes space = self->reader_.space();
    auto count = co_await self->stream_->read_some(space);
    if (!count || *count == 0) {
      Error why = !count ? count.error()
                  : self->reader_.at_boundary()
                      ? Error(Code::kUnavailable, self->address_ + ": closed by the peer")
                      : Error(Code::kUnavailable, self->address_ + ": closed in the middle of a frame");
      self->end(std::move(why));
      break;
    }
    ++self->reads_;
    self->reader_.filled(*count);
  }
  self->timer_.cancel();
  self->parked_.clear();
  self->alive_.reset();
  std::vector<std::uint64_t> running;
  for (auto& [id, signal] : self->handlers_) running.push_back(id);
  for (std::uint64_t id : running) {
    auto it = self->handlers_.find(id);
    if (it != self->handlers_.end()) it->second.emit(asio::cancellation_type::terminal);
  }
  std::function<void(const Error&)> callback;
  {
    std::lock_guard lock(self->mutex_);
    callback = std::move(self->on_close_);
    self->on_close_ = nullptr;
  }
  if (callback) callback(self->end_reason());
}

void LiveConnection::end(Error reason, std::optional<Error> pending) {
  decltype(calls_) calls;
  std::uint64_t handed;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    handed = calls_handed_;
    end_error_ = reason;
    open_ = false;
    calls.swap(calls_);
    held_.clear();
    held_count_ = 0;
  }
  if (reason.code() == Code::kUnavailable || reason.code() == Code::kCancelled) {
    log_debug("rpc_connection_closed", "peer={} reason={}", address_, log_quote(reason.message()));
  } else {
    log_warn("rpc_connection_closed", "peer={} reason={}", address_, log_quote(reason.to_string()));
  }
  stream_->close();
  for (auto& [id, call] : calls) {
    if (!call.waiter) continue;
    if (pending) {
      call.waiter->complete_later(fail(*pending));
    } else if (call.sent == 0 || call.sent > handed) {
      call.waiter->complete_later(
          fail(Code::kUnavailable,
               fmt::format("{}: {} was not sent: {}", address_, method_name(call.method), reason.message())));
    } else {
      call.waiter->complete_later(
          fail(Code::kMaybeApplied, fmt::format("{}: connection lost before the reply to {}: {}", address_,
                                                method_name(call.method), reason.message())));
    }
  }
  asio::post(strand_, [self = self()] {
    self->timer_.cancel();
    self->unpaused_.set();
  });
}

Task<Result<Frame>> LiveConnection::read_frame() {
  for (;;) {
    auto frame = reader_.next();
    if (!frame) co_return fail(std::move(frame.error()));
    if (*frame) co_return std::move(**frame);
    MutableBytes space = reader_.space();
    auto count = co_await stream_->read_some(space);
    if (!count) co_return fail(std::move(count.error()));
    if (*count == 0) co_return fail(Code::kUnavailable, address_ + ": closed by the peer");
    ++reads_;
    reader_.filled(*count);
  }
}

Result<> LiveConnection::read_batch() {
  Corked corked(this);
  for (int frames = 1;; ++frames) {
    try {
      TRY(auto frame, reader_.next());
      if (!frame) return {};
      TRYV(on_frame(std::move(*frame)));
    } catch (const kj::Exception& e) {
      return fail(Code::kProtocol, std::string("malformed message: ") + e.getDescription().cStr());
    } catch (const std::bad_alloc&) {
      return fail(Code::kOverloaded, "no memory for a received frame");
    }
    if (frames % kFramesPerWrite == 0) flush_now();
  }
}

Result<> LiveConnection::on_frame(Frame frame) {
  switch (frame.header.kind) {
    case FrameKind::kRequest:
      return on_request(std::move(frame));
    case FrameKind::kReply:
      return on_reply(std::move(frame));
    case FrameKind::kCancel:
      on_cancel(frame.header.id);
      return {};
    case FrameKind::kGoodbye:
      on_goodbye(frame.header.id);
      return {};
    case FrameKind::kPing: {
      std::lock_guard lock(mutex_);
      // Whatever waits to be written shows life as well; and who pings without reading gets no growing queue.
      if (queued_.empty() && !writing_)
        queue_locked({.kind = FrameKind::kPong, .id = frame.header.id}, nullptr);
      return {};
    }
    case FrameKind::kPong:
      return {};  // that it was read is what counts
    case FrameKind::kHello:
    case FrameKind::kHelloReply:
      break;
  }
  return fail(Code::kProtocol, says_hello(frame.header.kind) ? "a second hello" : "unknown kind of frame");
}

// --- Writing ------------------------------------------------------------------------------------

void LiveConnection::queue_locked(FrameHeader header, OutMessage* message) {
  if (ended_) return;
  if (message == nullptr) {
    queued_.add(header, {}, {});
  } else {
    queued_.add(header, message->builder().getSegmentsForOutput(), std::move(message->payload));
  }
}

void LiveConnection::flush() {
  if (t_reading != this) flush_now();
}

void LiveConnection::flush_now() {
  std::unique_lock lock(mutex_);
  for (int round = 0; !writing_ && !ended_ && !queued_.empty(); ++round) {
    writing_ = true;
    std::swap(writing_now_, queued_);
    writing_size_ = writing_now_.size();
    const std::uint64_t handed_before = std::exchange(calls_handed_, calls_sent_);
    lock.unlock();
    std::size_t written = 0;
    if (round < kDirectWrites) {
      auto count = stream_->try_write(writing_now_.pieces(0));
      if (!count) {
        lock.lock();
        calls_handed_ = handed_before;  // nothing of this went out: those calls are safe to repeat elsewhere
        lock.unlock();
        end(std::move(count.error()));
        wrote_batch();
        return;
      }
      written = *count;
    }
    if (written < writing_now_.size()) {
      asio::co_spawn(strand_, write_rest(self(), written), asio::detached);
      return;
    }
    wrote_batch();
    lock.lock();
  }
}

// The owner of writing_now_ gives it up.
void LiveConnection::wrote_batch() {
  const std::size_t answered = writing_now_.answered();
  const std::size_t answered_payload = writing_now_.answered_payload();
  writing_now_.clear();
  bool watch;
  {
    std::lock_guard lock(mutex_);
    unanswered_ -= answered;
    unanswered_payload_ -= answered_payload;
    writing_size_ = 0;
    writing_ = false;
    watch = watch_writes_;
  }
  if (watch) {
    asio::post(strand_, [self = self()] { self->on_written(); });
  }
}

// What the kernel did not take at once. Owns writing_now_. Its owner is the connection, which it keeps.
Task<> LiveConnection::write_rest(std::shared_ptr<LiveConnection> self, std::size_t written) {
  const std::vector<Bytes>& pieces = self->writing_now_.pieces(written);
  auto result = co_await self->stream_->write_all(pieces);
  if (!result) self->end(std::move(result.error()));
  self->wrote_batch();
  self->flush_now();
}

void LiveConnection::on_written() {
  {
    std::lock_guard lock(mutex_);
    watch_writes_ = goodbye_sent_ || paused_;
  }
  start_parked();
  if (paused_) unpaused_.set();
  close_if_done();
}

// --- Goodbye ------------------------------------------------------------------------------------

void LiveConnection::begin_goodbye() {
  asio::post(strand_, [self = self()] {
    if (!self->greeted_) {
      self->end(Error(Code::kUnavailable, self->address_ + ": stopping"));
      return;
    }
    {
      std::lock_guard lock(self->mutex_);
      if (self->goodbye_sent_) return;
      self->goodbye_sent_ = true;
      self->watch_writes_ = true;
      self->queue_locked({.kind = FrameKind::kGoodbye, .id = self->requests_taken_}, nullptr);
    }
    self->flush_now();
    self->close_if_done();
  });
}

void LiveConnection::close_if_done() {
  {
    std::lock_guard lock(mutex_);
    if (!goodbye_sent_ || unanswered_ > 0 || !calls_.empty() || writing_ || !queued_.empty()) return;
  }
  end(Error(Code::kUnavailable, address_ + ": stopped"));
}

// --- Timer: late calls, and peers that died without a word ---------------------------------------

void LiveConnection::set_timer() {
  TimePoint at;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    at = timer_at_;
  }
  timer_.expires_after(runtime_.timer_slice(std::max(at - runtime_.clock().now(), Duration::zero())));
  timer_.async_wait([weak = std::weak_ptr(self())](const boost::system::error_code& ec) {
    auto self = weak.lock();
    if (!ec && self) self->on_timer();
  });
}

void LiveConnection::on_timer() {
  const TimePoint now = runtime_.clock().now();
  bool look;
  {
    std::lock_guard lock(mutex_);
    look = now >= next_look_;
  }
  if (look) look_for_life(now);
  expire_calls(now);
  flush();
  set_timer();
}

void LiveConnection::look_for_life(TimePoint now) {
  if (!greeted_) {
    end(Error(Code::kTimeout,
              fmt::format("{}: no hello within {} ms", address_, limits_.hello_timeout.count() / 1000000)));
    return;
  }
  if (reads_ != reads_seen_ || paused_) {
    silent_looks_ = 0;
  } else {
    ++silent_looks_;
  }
  reads_seen_ = reads_;
  if (silent_looks_ >= 3) {
    end(Error(Code::kTimeout, fmt::format("{}: no answer to a ping for {} ms", address_,
                                          2 * limits_.idle_ping.count() / 1000000)));
    return;
  }
  std::lock_guard lock(mutex_);
  next_look_ = now + limits_.idle_ping;
  if (silent_looks_ == 1) queue_locked({.kind = FrameKind::kPing, .id = next_id_++}, nullptr);
}

}  // namespace cairn::rpc
