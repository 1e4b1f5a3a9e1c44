#include "client/client.h"

#include <unistd.h>

#include "client/client_impl.h"
#include "store/base/log.h"

namespace cairn {

Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
  static rpc::TcpTransport transport;  // no state of its own
  static SystemClock clock;
  TRY(auto client, client::ClientImpl::connect(std::move(options), transport, clock));
  return std::unique_ptr<Client>(std::move(client));
}

}  // namespace cairn

namespace cairn::client {
namespace {

std::string default_name() {
  char host[256] = "unknown";
  if (gethostname(host, sizeof host) != 0) host[0] = '\0';
  host[sizeof host - 1] = '\0';
  return std::string(host) + ":" + std::to_string(getpid());
}

ClientOptions completed(ClientOptions options) {
  if (options.name.empty()) options.name = default_name();
  options.io_threads = std::max(1u, options.io_threads);
  options.parallel_chunks = std::max(1u, options.parallel_chunks);
  options.memory_bytes = std::max<std::uint64_t>(options.memory_bytes, 32 << 20);
  return options;
}

}  // namespace

ClientImpl::ClientImpl(ClientOptions options, rpc::Transport& transport, Clock& clock)
    : options_(completed(std::move(options))),
      clock_(clock),
      runtime_(clock, options_.io_threads, "cairn-client"),
      session_(runtime_, transport, {options_.meta, options_.name}),
      routing_(runtime_, transport, session_),
      chunks_(runtime_, session_, routing_),
      transfer_memory_(runtime_, options_.memory_bytes / 4),
      objects_(runtime_, session_, chunks_, transfer_memory_, options_),
      files_(runtime_, session_, chunks_, options_),
      directories_(runtime_, session_, files_, options_) {
  session_.set_holder(&files_);
  session_.on_routing_version([this](std::uint64_t version) { routing_.note_version(version); });
}

Result<std::unique_ptr<ClientImpl>> ClientImpl::connect(ClientOptions options, rpc::Transport& transport,
                                                        Clock& clock) {
  if (options.meta.empty()) return fail(Code::kConfig, "no address of a metadata server is given");
  std::unique_ptr<ClientImpl> client(new ClientImpl(std::move(options), transport, clock));
  const Deadline deadline = Deadline::after(clock, client->options_.timeout);
  auto started = rpc::block_on(client->runtime_, client->session_.start(deadline));
  if (started) {
    // The first table, so that the first transfer need not wait for it.
    started = rpc::block_on(client->runtime_, client->routing_.refresh(client->routing_.table(), deadline));
  }
  if (!started) return fail(std::move(started.error()));
  return client;
}

ClientImpl::~ClientImpl() {
  auto closed = close();
  if (!closed) log_warn("client_close", "error={}", log_quote(closed.error().to_string()));
  // Whatever is still suspended ends before the parts that it refers to go.
  routing_.close();
  runtime_.stop();
}

Result<> ClientImpl::close() {
  if (closed_.exchange(true)) return {};
  const Deadline deadline = Deadline::after(clock_, options_.timeout);
  Result<> outcome = files_.close(deadline);
  rpc::block_on(runtime_, session_.close(Deadline::after(clock_, std::chrono::seconds(2))));
  return outcome;
}

Result<std::string> ClientImpl::status(std::string_view what) {
  schema::StatusRequest::What asked;
  if (what == "status") {
    asked = schema::StatusRequest::What::STATUS;
  } else if (what == "servers") {
    asked = schema::StatusRequest::What::SERVERS;
  } else if (what == "groups") {
    asked = schema::StatusRequest::What::GROUPS;
  } else if (what == "sessions") {
    asked = schema::StatusRequest::What::SESSIONS;
  } else {
    return fail(Code::kInvalidArgument,
                "there is no status of '" + std::string(what) + "': status, servers, groups, sessions");
  }
  std::function<void(schema::StatusRequest::Builder, std::uint64_t)> fill =
      [asked](schema::StatusRequest::Builder body, std::uint64_t) { body.setWhat(asked); };
  const Deadline deadline = Deadline::after(clock_, options_.timeout);
  TRY(auto reply, rpc::block_on(runtime_, session_.query<rpc::method::Status>(std::move(fill), deadline)));
  return decoded("Status", [&] { return std::string(reply->getJson().cStr()); });
}

Result<> ClientImpl::admin(AdminCommand command, ServerId server, Loss loss) {
  std::function<void(schema::AdminRequest::Builder, std::uint64_t)> fill =
      [=](schema::AdminRequest::Builder body, std::uint64_t) {
        switch (command) {
          case AdminCommand::kDrain:
            body.setCommand(schema::AdminRequest::Command::DRAIN);
            break;
          case AdminCommand::kUndrain:
            body.setCommand(schema::AdminRequest::Command::UNDRAIN);
            break;
          case AdminCommand::kForget:
            body.setCommand(schema::AdminRequest::Command::FORGET);
            break;
        }
        body.setServer(server.value());
        body.setAcceptLoss(loss == Loss::kAccept);
      };
  // Each command says what shall be, not what to change: repeating one does no harm.
  const Deadline deadline = Deadline::after(clock_, options_.timeout);
  TRYV(rpc::block_on(runtime_, session_.query<rpc::method::Admin>(std::move(fill), deadline)));
  return {};
}

}  // namespace cairn::client
