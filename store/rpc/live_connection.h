// One established stream with RPC on it, the same on both sides: sends requests and waits for replies, serves
// the requests that arrive. Server and Channel make them; the rest of Cairn sees a Peer.
//
// Threads: call(), close() and the sending of replies happen on any thread, under mutex_; a frame is written
// at once by the thread that made it when no write is going on (no hop to another thread), else by whoever is
// writing. Reading, starting and cancelling handlers, and the timer happen on strand_.
//
// Back-pressure: each side says in Hello how many requests (and bytes of their payloads) it takes at once,
// and the other holds further calls back before they are sent. So the reader need not stop, and replies are
// never stuck behind requests (both directions share the stream: a server whose handlers wait for a call back
// to the same client would wait for ever). Against a peer that ignores the limits the reader does stop. While
// too many bytes wait to be written, received requests are parked, not started. A request counts until its
// reply has been written.
#pragma once

#include <atomic>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "store/rpc/completion.h"
#include "store/rpc/connection.h"
#include "store/rpc/frame_reader.h"
#include "store/rpc/live_count.h"
#include "store/rpc/outgoing.h"

namespace cairn::rpc {

enum class Side { kConnecting, kAccepting };

struct LiveSetup {
  Runtime* runtime = nullptr;
  Identity identity;
  Service* service = nullptr;  // null: every request is answered with kUnimplemented
  ConnectionLimits limits;
  std::shared_ptr<LiveCount> live;
};

class LiveConnection final : public Peer {
 public:
  LiveConnection(const LiveSetup& setup, std::unique_ptr<Stream> stream, Side side);
  ~LiveConnection() override;

  asio::any_io_executor strand() { return strand_; }
  // On strand(), once, first: exchanges Hello within hello_timeout. On an error the connection is closed.
  static Task<Result<>> greet(std::shared_ptr<LiveConnection> self);
  // On strand(), once, after greet(): reads until the connection ends. Pending calls have ended when it
  // returns.
  static Task<> run(std::shared_ptr<LiveConnection> self);

  // Takes no more requests; closes when all that runs in both directions has ended. Any thread.
  void begin_goodbye();
  // Ends every pending call with `pending` and closes. Any thread; the first reason counts.
  void end(Error reason, std::optional<Error> pending = std::nullopt);
  // The reason it ended; only after it did.
  Error end_reason() const;

  using Peer::call;
  Task<Result<InMessage>> call(std::uint16_t method, OutMessage request, Deadline deadline) override;
  bool connected() const override;
  void close(std::string reason) override;
  Role role() const override { return peer_role_; }
  std::uint64_t id() const override { return peer_id_; }
  std::string address() const override { return address_; }
  void on_close(std::function<void(const Error&)> callback) override;

 private:
  using Reply = Result<InMessage>;
  struct Call {
    std::unique_ptr<Completion<Reply>> waiter;  // null: cancelled or late; its reply is still to come
    Deadline deadline;
    std::uint16_t method = 0;
    std::uint64_t sent = 0;  // number among the requests sent, 0: held back
    std::size_t payload_bytes = 0;
    std::uint64_t payload_checksum = 0;
    std::optional<OutMessage> held;
  };
  struct Incoming {
    std::uint64_t id = 0;
    std::size_t payload_bytes = 0;
    PayloadBudget::Hold held;
    Request request;
  };
  class EndGuard;
  using Alive = std::shared_ptr<LiveCount::Token>;

  // Calls out (call_out.cc).
  void start_call(std::uint64_t id, std::uint16_t method, OutMessage request, Deadline deadline,
                  std::unique_ptr<Completion<Reply>> waiter);
  void send_call_locked(std::uint64_t id, Call& call, OutMessage& request, TimePoint now);
  void send_held_locked();
  bool window_open_locked(std::size_t payload_bytes) const;
  void cancel_call(std::uint64_t id);
  void expire_calls(TimePoint now);
  Result<> on_reply(Frame frame);
  void on_goodbye(std::uint64_t taken);

  // Requests in (serve.cc).
  Result<> on_request(Frame frame);
  void on_cancel(std::uint64_t id);
  void start_handler(Incoming incoming);
  void start_parked();
  static Task<> serve(std::shared_ptr<LiveConnection> self, Alive alive, Incoming incoming);
  void send_reply(std::uint64_t id, std::size_t payload_bytes, Result<OutMessage> reply);
  bool must_pause();

  // Both (live_connection.cc).
  std::shared_ptr<LiveConnection> self() {
    return std::static_pointer_cast<LiveConnection>(shared_from_this());
  }
  Task<Result<Frame>> read_frame();
  Task<Result<>> greet_accepting();
  Task<Result<>> greet_connecting();
  Result<> read_batch();
  Result<> on_frame(Frame frame);
  void queue_locked(FrameHeader header, OutMessage* message);
  void flush();  // writes what is queued, unless this thread is in read_batch(), which does it at its end
  void flush_now();
  void wrote_batch();
  static Task<> write_rest(std::shared_ptr<LiveConnection> self, std::size_t written);
  void on_written();
  void close_if_done();
  void set_timer();
  void on_timer();
  void look_for_life(TimePoint now);

  Runtime& runtime_;
  const Identity identity_;
  Service* const service_;
  const ConnectionLimits limits_;
  const std::unique_ptr<Stream> stream_;
  const asio::any_io_executor strand_;
  const Side side_;
  const std::string address_;

  // Written by greet(), constant afterwards.
  Role peer_role_ = Role::kClient;
  std::uint64_t peer_id_ = 0;
  std::string peer_program_;
  std::size_t window_requests_ = 0;
  std::size_t window_payload_ = 0;

  std::atomic<std::uint64_t> next_id_{1};
  std::atomic<bool> open_{false};  // greeted, not ended, no goodbye from the peer

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  bool ended_ = false;
  std::optional<Error> end_error_;
  bool goodbye_sent_ = false;
  bool goodbye_received_ = false;
  std::function<void(const Error&)> on_close_;
  std::unordered_map<std::uint64_t, Call> calls_;
  std::deque<std::uint64_t> held_;  // in order; may name calls that are gone
  std::size_t held_count_ = 0;
  std::uint64_t calls_sent_ = 0;
  std::uint64_t calls_handed_ = 0;   // of those, the ones of which the kernel may have got a part
  std::size_t calls_in_flight_ = 0;  // sent, reply not here
  std::size_t calls_payload_ = 0;    // bytes of their payloads
  std::size_t unanswered_ = 0;       // requests taken whose reply is not written
  std::size_t unanswered_payload_ = 0;
  TimePoint next_look_;   // when to see whether the peer lives
  TimePoint timer_at_;    // when the timer is set to fire (or about to be)
  bool writing_ = false;  // somebody owns writing_now_
  Outgoing queued_;
  std::size_t writing_size_ = 0;  // of writing_now_
  bool watch_writes_ = false;     // on_written() wants to know

  Outgoing writing_now_;  // only by whoever set writing_

  // Only on strand_.
  Alive alive_;  // while run() lasts; handlers hold it too
  FrameReader reader_;
  bool greeted_ = false;
  std::unordered_map<std::uint64_t, asio::cancellation_signal> handlers_;
  std::deque<Incoming> parked_;
  std::uint64_t requests_taken_ = 0;
  std::uint64_t reads_ = 0;       // grows with each read, to see that the peer lives
  std::uint64_t reads_seen_ = 0;  // at the last look
  int silent_looks_ = 0;
  bool paused_ = false;
  bool awaits_room_ = false;  // limits_.clients_payload will call
  asio::steady_timer timer_;
  Event unpaused_;
};

}  // namespace cairn::rpc
