#include "chunkserver/meta_link.h"

#include <algorithm>

#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kConnectTimeout = std::chrono::seconds(2);
constexpr Duration kCallTimeout = std::chrono::seconds(4);
constexpr Duration kBackoffMin = std::chrono::milliseconds(20);
constexpr Duration kBackoffMax = std::chrono::seconds(1);
constexpr Duration kRefusedPause = std::chrono::seconds(5);

}  // namespace

bool never_heals(const Error& refusal) {
  return refusal.code() == Code::kWrongCluster || refusal.code() == Code::kNotFound;
}

MetaLink::MetaLink(rpc::Runtime& runtime, rpc::Transport& transport, const rpc::Identity& identity,
                   std::vector<std::string> addresses, ServerLease& lease, MetaLinkHost& host)
    : runtime_(runtime),
      transport_(transport),
      identity_(identity),
      addresses_(std::move(addresses)),
      lease_(lease),
      host_(host),
      wake_(runtime) {}

void MetaLink::start(rpc::TaskGroup& tasks) {
  tasks.spawn(runtime_.make_strand(), run());
}

void MetaLink::heartbeat_now() {
  wake_.set();
}

void MetaLink::close() {
  std::shared_ptr<rpc::Channel> channel;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    channel = std::move(channel_);
  }
  if (channel) channel->close();
}

rpc::Task<Result<rpc::OutMessage>> MetaLink::handle(rpc::Request request) {
  if (request.method != rpc::method::Poke::kNumber)
    co_return fail(Code::kUnimplemented, "not a request to a chunkserver");
  heartbeat_now();
  rpc::OutMessage reply;
  reply.body<schema::Empty>();
  co_return reply;
}

rpc::Task<> MetaLink::run() {
  Duration backoff = kBackoffMin;
  std::string last_problem;
  for (std::size_t next = 0;; ++next) {
    std::shared_ptr<rpc::Channel> channel;
    {
      std::lock_guard lock(mutex_);
      if (closed_) co_return;
      channel =
          rpc::Channel::create(runtime_, transport_, addresses_[next % addresses_.size()], identity_, this);
      channel_ = channel;
    }
    const TimePoint began = runtime_.clock().now();
    auto ended = co_await serve_connection(channel);
    channel->close();
    const Error& why = ended.error();
    if (why.code() == Code::kCancelled) co_return;
    {
      std::lock_guard lock(mutex_);
      if (closed_) co_return;  // our own end is no loss
    }
    if (never_heals(why)) {
      host_.refused_for_good(
          why.with("the metadata server at " + channel->address() + " refused this server"));
      co_return;
    }
    const bool refused = why.code() == Code::kNeedsOperator || why.code() == Code::kVersionMismatch ||
                         why.code() == Code::kPermission;
    if (why.message() != last_problem) {
      last_problem = why.message();
      log_at(refused ? LogLevel::kError : LogLevel::kWarn, "meta_lost", "address={} error={}",
             channel->address(), log_quote(why.to_string()));
    }
    if (runtime_.clock().now() - began > kBackoffMax) backoff = kBackoffMin;
    auto slept = co_await rpc::sleep_for(runtime_, refused ? kRefusedPause : backoff);
    if (!slept) co_return;
    backoff = std::min(backoff * 2, kBackoffMax);
  }
}

// Ends, with the reason, when the connection did.
rpc::Task<Result<>> MetaLink::serve_connection(std::shared_ptr<rpc::Channel> channel) {
  const Deadline connect = Deadline::after(runtime_.clock(), kConnectTimeout);
  auto peer = co_await channel->connect(connect);
  if (!peer) co_return fail(std::move(peer.error()));
  channel->on_disconnect([this](const Error&) {
    lease_.connection_broke();
    heartbeat_now();
  });
  if (!(*peer)->connected()) lease_.connection_broke();
  auto interval = co_await introduce(*peer);
  if (!interval) co_return fail(std::move(interval.error()));
  log_info("registered", "meta={} heartbeat_ms={}", channel->address(), interval->count() / 1'000'000);
  for (;;) {
    wake_.reset();
    auto answered = co_await beat(*peer);
    if (!answered) {
      lease_.connection_broke();
      co_return fail(std::move(answered.error()));
    }
    auto woken = co_await wake_.wait(Deadline::after(runtime_.clock(), *interval));
    if (!woken && woken.error().code() == Code::kCancelled) co_return fail(std::move(woken.error()));
  }
}

rpc::Task<Result<Duration>> MetaLink::introduce(std::shared_ptr<rpc::Peer> peer) {
  rpc::OutMessage request = host_.register_request();
  const Deadline deadline = Deadline::after(runtime_.clock(), kCallTimeout);
  auto reply = co_await peer->call<rpc::method::Register>(std::move(request), deadline);
  if (!reply) co_return fail(reply.error().with("register"));
  const std::uint32_t interval = std::clamp<std::uint32_t>((*reply)->getHeartbeatMs(), 20, 60'000);
  co_return Duration(std::chrono::milliseconds(interval));
}

rpc::Task<Result<>> MetaLink::beat(std::shared_ptr<rpc::Peer> peer) {
  const TimePoint sent = runtime_.clock().now();
  rpc::OutMessage request = host_.heartbeat_request();
  const Deadline deadline{sent + kCallTimeout};
  auto reply = co_await peer->call<rpc::method::Heartbeat>(std::move(request), deadline);
  if (!reply) co_return fail(reply.error().with("heartbeat"));
  Orders orders;
  try {
    orders = orders_of(**reply);
  } catch (const kj::Exception& e) {
    co_return fail(Code::kProtocol, std::string("heartbeat: malformed reply: ") + e.getDescription().cStr());
  }
  const Duration lease = orders.lease;
  auto obeyed = co_await host_.obey(std::move(orders));
  if (!obeyed) co_return fail(std::move(obeyed.error()));
  if (lease.count() > 0) lease_.answered(sent, lease);
  co_return Result<>();
}

}  // namespace cairn::chunkserver
