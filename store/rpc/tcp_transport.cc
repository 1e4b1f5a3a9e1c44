#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <charconv>

#include "store/rpc/completion.h"
#include "store/rpc/transport.h"

namespace cairn::rpc {
namespace {

using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

struct HostPort {
  std::string host;
  std::string port;
};

// "host:port", "1.2.3.4:port", "[::1]:port".
Result<HostPort> parse_address(const std::string& address) {
  const auto bad = [&] {
    return fail(Code::kConfig, fmt::format("address '{}' is not HOST:PORT (for IPv6, [HOST]:PORT)", address));
  };
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) return bad();
  HostPort out{address.substr(0, colon), address.substr(colon + 1)};
  if (out.host.size() >= 2 && out.host.front() == '[' && out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return bad();
  }
  unsigned port = 0;
  const auto parsed = std::from_chars(out.port.data(), out.port.data() + out.port.size(), port);
  if (out.host.empty() || parsed.ec != std::errc() || parsed.ptr != out.port.data() + out.port.size() ||
      port > 65535) {
    return bad();
  }
  return out;
}

std::string endpoint_text(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", host, endpoint.port())
                                    : fmt::format("{}:{}", host, endpoint.port());
}

Error stream_error(const std::string& peer, const char* what, const ErrorCode& ec) {
  if (ec == asio::error::operation_aborted) {
    return Error(Code::kCancelled, fmt::format("{}: {} cancelled", peer, what));
  }
  return Error(Code::kUnavailable, fmt::format("{}: {}: {}", peer, what, ec.message()));
}

class TcpStream final : public Stream {
 public:
  explicit TcpStream(tcp::socket socket) : socket_(std::move(socket)) {
    ErrorCode ec;
    socket_.set_option(tcp::no_delay(true), ec);
    const auto remote = socket_.remote_endpoint(ec);
    peer_ = ec ? "unknown" : endpoint_text(remote);
  }

  Task<Result<std::size_t>> read_some(MutableBytes into) override {
    ErrorCode ec;
    const std::size_t n = co_await socket_.async_read_some(asio::buffer(into.data(), into.size()),
                                                           asio::redirect_error(asio::use_awaitable, ec));
    if (ec == asio::error::eof) co_return std::size_t{0};
    if (ec) co_return fail(stream_error(peer_, "read", ec));
    co_return n;
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
    std::vector<asio::const_buffer> buffers;
    buffers.reserve(pieces.size());
    for (Bytes piece : pieces) buffers.emplace_back(piece.data(), piece.size());
    ErrorCode ec;
    co_await asio::async_write(socket_, buffers, asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return fail(stream_error(peer_, "write", ec));
    co_return Result<>();
  }

  Result<std::size_t> try_write(std::span<const Bytes> pieces) override {
    std::array<iovec, 64> vectors;
    const std::size_t count = std::min(pieces.size(), vectors.size());
    for (std::size_t i = 0; i < count; ++i) {
      vectors[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};
    }
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = count;
    for (;;) {
      const ssize_t n = ::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return std::size_t{0};
      return fail(stream_error(peer_, "write", ErrorCode(errno, boost::system::system_category())));
    }
  }

  // Only shuts down: the descriptor stays until the destructor, so that a write on another thread never meets
  // a number that the kernel gave to somebody else.
  void close() override { ::shutdown(socket_.native_handle(), SHUT_RDWR); }

  std::string peer() const override { return peer_; }
  asio::any_io_executor executor() override { return socket_.get_executor(); }

 private:
  tcp::socket socket_;
  std::string peer_;
};

class TcpListener final : public Listener {
 public:
  TcpListener(Runtime& runtime, tcp::acceptor acceptor)
      : runtime_(runtime), acceptor_(std::make_shared<tcp::acceptor>(std::move(acceptor))) {
    ErrorCode ec;
    address_ = endpoint_text(acceptor_->local_endpoint(ec));
  }
  ~TcpListener() override { TcpListener::close(); }

  Task<Result<std::unique_ptr<Stream>>> accept() override {
    auto acceptor = acceptor_;
    asio::any_io_executor strand = runtime_.make_strand();
    tcp::socket socket(strand);
    ErrorCode ec;
    co_await acceptor->async_accept(socket, asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return fail(stream_error(address_, "accept", ec));
    std::unique_ptr<Stream> stream = std::make_unique<TcpStream>(std::move(socket));
    co_return stream;
  }

  std::string address() const override { return address_; }

  // shutdown() of a listening socket refuses new connections at once and ends accept(), from any thread. The
  // descriptor itself is closed with the last user of the acceptor.
  void close() override { ::shutdown(acceptor_->native_handle(), SHUT_RDWR); }

 private:
  Runtime& runtime_;
  const std::shared_ptr<tcp::acceptor> acceptor_;
  std::string address_;
};

// One attempt to connect: resolve, connect, give up at the deadline or when cancelled. Everything on its own
// strand, which becomes the stream's.
class Connecting : public std::enable_shared_from_this<Connecting> {
 public:
  using Outcome = Result<std::unique_ptr<Stream>>;
  Connecting(Runtime& runtime, std::string address, Deadline deadline,
             std::unique_ptr<Completion<Outcome>> done)
      : runtime_(runtime),
        address_(std::move(address)),
        deadline_(deadline),
        strand_(runtime.make_strand()),
        resolver_(strand_),
        socket_(strand_),
        timer_(strand_),
        done_(std::move(done)) {}

  void start() {
    auto parsed = parse_address(address_);
    if (!parsed) return finish(fail(std::move(parsed.error())));
    arm();
    if (!done_) return;
    ErrorCode ec;
    const auto numeric = asio::ip::make_address(parsed->host, ec);
    if (!ec) {  // no thread hop through the resolver
      endpoints_.emplace_back(numeric, static_cast<std::uint16_t>(std::stoul(parsed->port)));
      return connect();
    }
    resolver_.async_resolve(parsed->host, parsed->port,
                            [self = shared_from_this()](ErrorCode ec, auto results) {
                              if (ec) return self->fail_with(ec, "cannot be resolved");
                              for (const auto& result : results)
                                self->endpoints_.push_back(result.endpoint());
                              self->connect();
                            });
  }

  void cancel() {
    asio::post(strand_, [self = shared_from_this()] {
      self->finish(fail(Code::kCancelled, self->address_ + ": connect cancelled"));
    });
  }
  asio::any_io_executor strand() { return strand_; }

 private:
  void arm() {
    const Duration left = deadline_.left(runtime_.clock());
    if (left <= Duration::zero()) return finish(fail(Code::kTimeout, address_ + ": connect timed out"));
    timer_.expires_after(runtime_.timer_slice(left));
    timer_.async_wait([self = shared_from_this()](ErrorCode ec) {
      if (!ec && self->done_) self->arm();
    });
  }

  void connect() {
    if (!done_) return;
    asio::async_connect(socket_, endpoints_, [self = shared_from_this()](ErrorCode ec, const tcp::endpoint&) {
      if (ec) return self->fail_with(ec, "unreachable");
      if (!self->done_) return;
      // A connect to an unused port of this host can meet itself (simultaneous open): nobody listens there.
      ErrorCode local_ec, remote_ec;
      if (self->socket_.local_endpoint(local_ec) == self->socket_.remote_endpoint(remote_ec) && !local_ec) {
        return self->fail_with(asio::error::connection_refused, "refused");
      }
      self->finish(std::make_unique<TcpStream>(std::move(self->socket_)));
    });
  }

  void fail_with(const ErrorCode& ec, const char* what) {
    if (ec == asio::error::connection_refused) {
      finish(fail(Code::kUnavailable, address_ + ": connection refused"));
    } else {
      finish(fail(Code::kUnavailable, fmt::format("{}: {} ({})", address_, what, ec.message())));
    }
  }

  void finish(Outcome outcome) {
    if (!done_) return;
    auto done = std::move(done_);
    timer_.cancel();
    resolver_.cancel();
    ErrorCode ec;
    if (!outcome) socket_.close(ec);
    done->complete(std::move(outcome));
  }

  Runtime& runtime_;
  const std::string address_;
  const Deadline deadline_;
  const asio::any_io_executor strand_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::vector<tcp::endpoint> endpoints_;
  std::unique_ptr<Completion<Outcome>> done_;
};

}  // namespace

Result<std::unique_ptr<Listener>> TcpTransport::listen(Runtime& runtime, const std::string& address) {
  TRY(HostPort parsed, parse_address(address));
  ErrorCode ec;
  asio::io_context resolving(1);
  tcp::resolver resolver(resolving);
  const auto results = resolver.resolve(parsed.host, parsed.port, tcp::resolver::passive, ec);
  if (ec || results.empty()) {
    return fail(Code::kConfig,
                fmt::format("listen address '{}' cannot be resolved: {}", address, ec.message()));
  }
  const tcp::endpoint endpoint = results.begin()->endpoint();
  asio::any_io_executor strand = runtime.make_strand();
  tcp::acceptor acceptor(strand);
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) {
    const bool not_ours = ec == asio::error::address_in_use || ec == asio::error::access_denied;
    return fail(not_ours ? Code::kUnavailable : Code::kConfig,
                fmt::format("cannot listen on '{}': {}", address, ec.message()));
  }
  return std::make_unique<TcpListener>(runtime, std::move(acceptor));
}

Task<Result<std::unique_ptr<Stream>>> TcpTransport::connect(Runtime& runtime, std::string address,
                                                            Deadline deadline) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(Connecting::Outcome)>(
      [](auto handler, Runtime* runtime, std::string address, Deadline deadline) {
        auto slot = asio::get_associated_cancellation_slot(handler);
        const bool refused = already_cancelled(handler);
        auto connecting = std::make_shared<Connecting>(
            *runtime, std::move(address), deadline, make_completion<Connecting::Outcome>(std::move(handler)));
        if (slot.is_connected()) {
          slot.assign([weak = std::weak_ptr(connecting)](asio::cancellation_type) {
            if (auto connecting = weak.lock()) connecting->cancel();
          });
        }
        if (refused) return connecting->cancel();
        asio::post(connecting->strand(), [connecting] { connecting->start(); });
      },
      asio::use_awaitable, &runtime, std::move(address), deadline);
}

}  // namespace cairn::rpc
