#include "chunkserver/bootstrap.h"

#include <fmt/format.h>

#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kJoinTimeout = std::chrono::seconds(2);
constexpr Duration kBootstrapRetry = std::chrono::milliseconds(200);

struct ServerIdentity {
  ClusterId cluster;
  ServerId server;
  Era era;
};

rpc::Task<Result<ServerIdentity>> join(rpc::Runtime& runtime, std::shared_ptr<rpc::Channel> channel,
                                       const ChunkserverConfig& config) {
  rpc::OutMessage request;
  auto body = request.body<schema::JoinRequest>();
  body.setAddress(config.advertise.empty() ? config.listen : config.advertise);
  auto labels = body.initLabels(static_cast<unsigned>(config.labels.size()));
  for (unsigned i = 0; i < config.labels.size(); ++i) labels.set(i, config.labels[i]);
  const Deadline deadline = Deadline::after(runtime.clock(), kJoinTimeout);
  auto reply = co_await channel->call<rpc::method::Join>(std::move(request), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return ServerIdentity{ClusterId((*reply)->getCluster()), ServerId((*reply)->getServer()),
                           Era((*reply)->getEra())};
}

rpc::Task<bool> pause(rpc::Runtime& runtime) {
  auto slept = co_await rpc::sleep_for(runtime, kBootstrapRetry);
  co_return slept.has_value();
}

Result<ServerIdentity> join_cluster(rpc::Runtime& runtime, rpc::Transport& transport,
                                    const ChunkserverConfig& config, const std::atomic<bool>& stop) {
  rpc::Identity nobody;
  nobody.role = rpc::Role::kChunkserver;
  nobody.cluster = [] { return ClusterId(); };
  nobody.id = [] { return std::uint64_t{0}; };
  nobody.program = "cairn-chunkserver (joining)";
  std::string last_problem;
  for (std::size_t next = 0; !stop.load(); ++next) {
    const std::string& address = config.meta[next % config.meta.size()];
    auto channel = rpc::Channel::create(runtime, transport, address, nobody);
    auto joined = rpc::block_on(runtime, join(runtime, channel, config));
    channel->close();
    if (joined) {
      log_info("joined", "meta={} cluster={} server={}", address, to_string(joined->cluster),
               to_string(joined->server));
      return joined;
    }
    const Code code = joined.error().code();
    const bool may_pass = code == Code::kUnavailable || code == Code::kTimeout ||
                          code == Code::kMaybeApplied || code == Code::kStarting || code == Code::kOverloaded;
    if (!may_pass) return fail(joined.error().with("joining the cluster of " + address));
    if (joined.error().message() != last_problem) {
      last_problem = joined.error().message();
      log_warn("join_waits", "meta={} error={}", address, log_quote(joined.error().to_string()));
    }
    if (!rpc::block_on(runtime, pause(runtime))) break;
  }
  return fail(Code::kCancelled, "stopped before the metadata server answered");
}

}  // namespace

Result<std::vector<OpenedTarget>> open_targets(rpc::Runtime& runtime, rpc::Transport& transport,
                                               disk::Disk& disk, const ChunkserverConfig& config,
                                               const std::atomic<bool>& stop) {
  std::optional<ServerIdentity> identity;
  std::vector<std::string> empty;
  for (const std::string& dir : config.data_dirs) {
    auto block = disk::ChunkEngine::identify(disk, dir);
    if (block) {
      if (!identity) identity = ServerIdentity{block->cluster, block->server, block->era};
    } else if (block.error().code() == Code::kNotFound) {
      empty.push_back(dir);
    } else {
      return fail(block.error().with(dir));
    }
  }
  if (!identity) {
    TRY(identity, join_cluster(runtime, transport, config, stop));
  }
  for (const std::string& dir : empty) {
    auto made = disk::ChunkEngine::format(disk, dir, identity->cluster, identity->server, identity->era);
    if (!made) return fail(made.error().with("formatting " + dir));
    log_info("formatted", "path={} target={} server={}", dir, to_string(made->target),
             to_string(made->server));
  }
  disk::EngineOptions options;
  options.capacity_bytes = config.capacity_bytes;
  options.reserve_bytes = config.reserve_bytes;
  options.cache_bytes = config.cache_bytes;
  std::vector<OpenedTarget> targets;
  for (const std::string& dir : config.data_dirs) {
    auto engine = disk::ChunkEngine::open(disk, dir, identity->cluster, options);
    if (!engine) return fail(engine.error().with(dir));
    targets.push_back({dir, std::move(*engine)});
  }
  return targets;
}

}  // namespace cairn::chunkserver
