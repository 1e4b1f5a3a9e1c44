// A service, a server and channels for the tests of this folder. Bodies are schema::Failure: a text and
// bytes.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "store/base/clock.h"
#include "store/rpc/connection.h"
#include "store/rpc/transport.h"

namespace cairn::rpc::testing {

using namespace std::chrono_literals;

enum TestMethod : std::uint16_t {
  kEcho = 1000,      // the same text and payload
  kWait = 1001,      // until the gate opens or it is cancelled; then the text
  kFail = 1002,      // kNotFound with the text
  kThrowKj = 1003,   // a kj::Exception
  kThrowStd = 1004,  // a std::exception
  kCallBack = 1005,  // calls kEcho at the caller and returns its answer
  kBulk = 1006,      // as many bytes as the number in the text
  kSink = 1008,      // drops the payload
  kSource = 1009,    // as kBulk, from one shared buffer, self-checked
};

inline OutMessage message(std::string_view text, Buffer payload = {}) {
  OutMessage out;
  out.body<schema::Failure>().setMessage(std::string(text));
  if (payload.size() > 0) out.payload.pieces.push_back(std::move(payload));
  return out;
}

inline std::string text_of(const InMessage& in) {
  return in.body<schema::Failure>().getMessage().cStr();
}

class TestService final : public Service {
 public:
  explicit TestService(Runtime& runtime) : runtime(runtime), gate(runtime), entered(runtime) {}

  Task<Result<OutMessage>> handle(Request request) override {
    switch (request.method) {
      case kEcho:
        return echo(std::move(request));
      case kWait:
        return wait(std::move(request));
      case kFail:
        return refuse(std::move(request));
      case kThrowKj:
        return throw_kj();
      case kThrowStd:
        return throw_std();
      case kCallBack:
        return call_back(std::move(request));
      case kBulk:
        return bulk(std::move(request));
      case kSink:
        return sink();
      case kSource:
        return source(std::move(request));
    }
    return unknown();
  }
  void connected(const std::shared_ptr<Peer>& peer) override {
    ++connections;
    std::lock_guard lock(mutex);
    last_peer = peer;
  }
  std::shared_ptr<Peer> peer() {
    std::lock_guard lock(mutex);
    return last_peer.lock();
  }

  Runtime& runtime;
  Event gate;
  Event entered;
  std::atomic<int> handled{0};
  std::atomic<int> waiting{0};
  std::atomic<int> waiting_max{0};
  std::atomic<int> cancelled{0};
  std::atomic<int> connections{0};
  std::atomic<std::int64_t> last_left_ms{-1};

 private:
  Task<Result<OutMessage>> echo(Request request) {
    ++handled;
    OutMessage out = message(text_of(request.message));
    if (request.message.payload().size() > 0) out.payload.pieces.push_back(request.message.take_payload());
    co_return out;
  }
  Task<Result<OutMessage>> wait(Request request) {
    ++handled;
    std::string text = text_of(request.message);
    const Duration left = request.deadline.left(runtime.clock());
    last_left_ms = left == Duration::max() ? -1 : left.count() / 1000000;
    const int now = ++waiting;
    waiting_max = std::max(waiting_max.load(), now);
    entered.set();
    auto waited = co_await gate.wait(Deadline::never());
    if (!waited) ++cancelled;
    --waiting;  // last: tests wait for it
    if (!waited) co_return fail(std::move(waited.error()));
    co_return message(text);
  }
  Task<Result<OutMessage>> refuse(Request request) {
    co_return fail(Code::kNotFound, text_of(request.message));
  }
  Task<Result<OutMessage>> throw_kj() {
    KJ_FAIL_REQUIRE("as if a reader met a bad pointer");
    co_return OutMessage();
  }
  Task<Result<OutMessage>> throw_std() {
    throw std::runtime_error("as if code had a bug");
    co_return OutMessage();
  }
  Task<Result<OutMessage>> call_back(Request request) {
    OutMessage out = message("back " + text_of(request.message));
    auto reply = co_await request.peer->call(kEcho, std::move(out), request.deadline);
    if (!reply) co_return fail(std::move(reply.error()));
    co_return message(text_of(*reply));
  }
  Task<Result<OutMessage>> bulk(Request request) {
    ++handled;
    Buffer bytes = Buffer::allocate(std::stoul(text_of(request.message)));
    if (bytes.size() > 0) std::memset(bytes.writable().data(), 'b', bytes.size());
    co_return message("bulk", std::move(bytes));
  }
  Task<Result<OutMessage>> sink() { co_return message("taken"); }
  Task<Result<OutMessage>> source(Request request) {
    OutMessage out = message("source", source_.slice(0, std::stoul(text_of(request.message))));
    out.payload.self_checked = true;
    co_return out;
  }
  Task<Result<OutMessage>> unknown() { co_return fail(Code::kUnimplemented, "unknown method"); }

  std::mutex mutex;
  std::weak_ptr<Peer> last_peer;
  Buffer source_ = Buffer::copy(std::vector<std::byte>(kPayloadMax, std::byte{'s'}));
};

inline Identity identity(Role role, std::uint64_t cluster = 0, std::uint64_t id = 0) {
  return {role, [cluster] { return ClusterId(cluster); }, [id] { return id; }, "test"};
}

}  // namespace cairn::rpc::testing
