#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "store/rpc/transport.h"

namespace cairn::rpc {
namespace {

constexpr std::size_t kPipeSize = 256 * 1024;  // like a socket's buffers: a writer waits for its reader

// Bytes in one direction. Thread-safe.
struct Pipe {
  std::mutex mutex;
  std::string bytes;    // guarded by mutex
  bool closed = false;  // guarded by mutex
  Event readable;
  Event writable;

  Pipe(Runtime& reader, Runtime& writer) : readable(reader), writable(writer) {}

  // Nothing: must wait.
  std::optional<std::size_t> take(MutableBytes into) {
    std::lock_guard lock(mutex);
    if (bytes.empty()) {
      if (closed) return 0;
      readable.reset();
      return std::nullopt;
    }
    const std::size_t n = std::min(into.size(), bytes.size());
    std::memcpy(into.data(), bytes.data(), n);
    bytes.erase(0, n);
    writable.set();
    return n;
  }

  Result<std::size_t> put(Bytes from) {
    std::lock_guard lock(mutex);
    if (closed) return fail(Code::kUnavailable, "write: the connection is closed");
    const std::size_t n = std::min(from.size(), kPipeSize - bytes.size());
    bytes.append(as_text(from.first(n)));
    if (n > 0) readable.set();
    if (n < from.size()) writable.reset();
    return n;
  }

  void close() {
    std::lock_guard lock(mutex);
    closed = true;
    readable.set();
    writable.set();
  }
};

// Both directions of one connection.
struct Link {
  const std::string address;
  Pipe to_server;
  Pipe to_client;
  Link(Runtime& client, Runtime& server, std::string to)
      : address(std::move(to)), to_server(server, client), to_client(client, server) {}
  void close() {
    to_server.close();
    to_client.close();
  }
};

class MemoryStream final : public Stream {
 public:
  MemoryStream(Runtime& runtime, std::shared_ptr<Link> link, Pipe& in, Pipe& out, std::string peer)
      : strand_(runtime.make_strand()), link_(std::move(link)), in_(in), out_(out), peer_(std::move(peer)) {}
  ~MemoryStream() override { link_->close(); }

  Task<Result<std::size_t>> read_some(MutableBytes into) override {
    for (;;) {
      if (auto n = in_.take(into)) co_return *n;
      auto waited = co_await in_.readable.wait(Deadline::never());
      if (!waited) co_return fail(std::move(waited.error()));
    }
  }
  Task<Result<>> read_exactly(MutableBytes into) override {
    while (!into.empty()) {
      auto n = co_await read_some(into);
      if (!n) co_return fail(std::move(n.error()));
      if (*n == 0) co_return fail(Code::kUnavailable, peer_ + ": closed in the middle");
      into = into.subspan(*n);
    }
    co_return Result<>();
  }
  Task<Result<>> write_all(std::span<const Bytes> pieces) override {
    for (Bytes piece : pieces) {
      while (!piece.empty()) {
        auto n = out_.put(piece);
        if (!n) co_return fail(std::move(n.error()));
        piece = piece.subspan(*n);
        if (piece.empty()) break;
        auto waited = co_await out_.writable.wait(Deadline::never());
        if (!waited) co_return fail(std::move(waited.error()));
      }
    }
    co_return Result<>();
  }
  Result<std::size_t> try_write(std::span<const Bytes> pieces) override {
    std::size_t sum = 0;
    for (Bytes piece : pieces) {
      TRY(const std::size_t n, out_.put(piece));
      sum += n;
      if (n < piece.size()) break;
    }
    return sum;
  }
  void close() override { link_->close(); }
  std::string peer() const override { return peer_; }
  asio::any_io_executor executor() override { return strand_; }

 private:
  const asio::any_io_executor strand_;
  const std::shared_ptr<Link> link_;
  Pipe& in_;
  Pipe& out_;
  const std::string peer_;
};

struct Listening {
  Runtime& runtime;  // accepted streams run there, as with sockets: the two ends do not share threads
  std::mutex mutex;
  std::deque<std::unique_ptr<Stream>> waiting;  // guarded by mutex
  bool closed = false;                          // guarded by mutex
  Event arrived;
  explicit Listening(Runtime& on) : runtime(on), arrived(on) {}
};

}  // namespace

struct MemoryTransport::State {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Listening>> listeners;  // guarded by mutex
  std::set<std::string> cut;                                    // guarded by mutex
  std::vector<std::weak_ptr<Link>> links;                       // guarded by mutex
  std::uint64_t connections = 0;                                // guarded by mutex
};

namespace {

template <class State>
class MemoryListener final : public Listener {
 public:
  MemoryListener(std::shared_ptr<State> state, std::string address, std::shared_ptr<Listening> listening)
      : state_(std::move(state)), address_(std::move(address)), listening_(std::move(listening)) {}
  ~MemoryListener() override { MemoryListener::close(); }

  Task<Result<std::unique_ptr<Stream>>> accept() override {
    auto listening = listening_;
    for (;;) {
      {
        std::lock_guard lock(listening->mutex);
        if (!listening->waiting.empty()) {
          std::unique_ptr<Stream> stream = std::move(listening->waiting.front());
          listening->waiting.pop_front();
          co_return stream;
        }
        if (listening->closed) co_return fail(Code::kUnavailable, "accept: the listener is closed");
        listening->arrived.reset();
      }
      auto waited = co_await listening->arrived.wait(Deadline::never());
      if (!waited) co_return fail(std::move(waited.error()));
    }
  }
  std::string address() const override { return address_; }
  void close() override {
    {
      std::lock_guard lock(state_->mutex);
      auto it = state_->listeners.find(address_);
      if (it != state_->listeners.end() && it->second == listening_) state_->listeners.erase(it);
    }
    std::deque<std::unique_ptr<Stream>> unaccepted;
    {
      std::lock_guard lock(listening_->mutex);
      listening_->closed = true;
      unaccepted.swap(listening_->waiting);
      listening_->arrived.set();
    }
  }

 private:
  const std::shared_ptr<State> state_;
  const std::string address_;
  const std::shared_ptr<Listening> listening_;
};

}  // namespace

MemoryTransport::MemoryTransport() : state_(std::make_shared<State>()) {}
MemoryTransport::~MemoryTransport() = default;

Result<std::unique_ptr<Listener>> MemoryTransport::listen(Runtime& runtime, const std::string& address) {
  auto listening = std::make_shared<Listening>(runtime);
  {
    std::lock_guard lock(state_->mutex);
    if (!state_->listeners.emplace(address, listening).second) {
      return fail(Code::kUnavailable, "cannot listen on '" + address + "': address in use");
    }
  }
  return std::make_unique<MemoryListener<State>>(state_, address, std::move(listening));
}

Task<Result<std::unique_ptr<Stream>>> MemoryTransport::connect(Runtime& runtime, std::string address,
                                                               Deadline deadline) {
  if (deadline.passed(runtime.clock())) co_return fail(Code::kTimeout, address + ": connect timed out");
  auto state = state_;
  std::lock_guard lock(state->mutex);
  if (state->cut.contains(address))
    co_return fail(Code::kUnavailable, address + ": unreachable (network cut)");
  auto it = state->listeners.find(address);
  if (it == state->listeners.end()) co_return fail(Code::kUnavailable, address + ": connection refused");
  Runtime& server = it->second->runtime;
  auto link = std::make_shared<Link>(runtime, server, address);
  std::erase_if(state->links, [](const auto& old) { return old.expired(); });
  state->links.push_back(link);
  const std::string name = "memory-client-" + std::to_string(++state->connections);
  {
    std::lock_guard listening_lock(it->second->mutex);
    it->second->waiting.push_back(
        std::make_unique<MemoryStream>(server, link, link->to_server, link->to_client, name));
    it->second->arrived.set();
  }
  std::unique_ptr<Stream> stream =
      std::make_unique<MemoryStream>(runtime, link, link->to_client, link->to_server, address);
  co_return stream;
}

void MemoryTransport::cut(const std::string& address) {
  std::vector<std::weak_ptr<Link>> links;
  {
    std::lock_guard lock(state_->mutex);
    state_->cut.insert(address);
    links = state_->links;
  }
  for (auto& weak : links) {
    auto link = weak.lock();
    if (link && link->address == address) link->close();
  }
}

void MemoryTransport::heal(const std::string& address) {
  std::lock_guard lock(state_->mutex);
  state_->cut.erase(address);
}

}  // namespace cairn::rpc
