#include "client/routing.h"

#include "store/base/log.h"

namespace cairn::client {

Result<std::shared_ptr<const RoutedGroup>> RoutingTable::group_of(PoolId pool, ChunkId chunk) const {
  auto found = pools.find(pool);
  if (found == pools.end()) {
    return fail(Code::kUnavailable, "the routing table (version " + std::to_string(version) +
                                        ") has no pool " + std::to_string(pool.value()));
  }
  const GroupId id{pool, slot_of(placement_hash(chunk), found->second.slots)};
  auto group = groups.find(id);
  if (group == groups.end()) {
    return fail(Code::kUnavailable,
                "the routing table (version " + std::to_string(version) + ") has no group " + to_string(id));
  }
  return group->second;
}

RoutingTable RoutingTable::with(schema::Routing::Reader change) const {
  RoutingTable next;
  if (!change.getFull()) next = *this;
  next.version = change.getVersion();
  for (auto pool : change.getPools()) {
    RoutedPool to{PoolId(pool.getId()), pool.getSlots(), pool.getReplicas(), pool.getMinReplicas(),
                  pool.getChunkSize()};
    if (to.slots == 0 || (to.slots & (to.slots - 1)) != 0) continue;  // slot_of() takes powers of two only
    next.pools[to.id] = to;
  }
  for (auto server : change.getServers()) {
    next.servers[ServerId(server.getId())] = {std::string(server.getAddress().cStr()), server.getState()};
  }
  for (auto group : change.getGroups()) {
    auto to = std::make_shared<RoutedGroup>();
    to->id = {PoolId(group.getId().getPool()), group.getId().getSlot()};
    to->epoch = Epoch(group.getEpoch());
    for (auto member : group.getMembers()) {
      to->members.push_back({TargetId(member.getTarget()), ServerId(member.getServer()), member.getInSync()});
    }
    next.groups[to->id] = std::move(to);
  }
  return next;
}

Routing::Routing(rpc::Runtime& runtime, rpc::Transport& transport, Session& session)
    : runtime_(runtime),
      transport_(transport),
      session_(session),
      tasks_(runtime),
      refreshing_(runtime, 1),
      table_(std::make_shared<RoutingTable>()) {
  identity_.role = rpc::Role::kClient;
  identity_.cluster = [this] { return session_.cluster(); };
  identity_.id = [this] { return session_.id().value(); };
  identity_.program = "cairn-client";
}

Routing::~Routing() {
  close();
  tasks_.close_blocking();
}

void Routing::close() {
  std::unordered_map<ServerId, std::shared_ptr<rpc::Channel>> channels;
  {
    std::lock_guard lock(mutex_);
    channels.swap(channels_);
  }
  for (auto& [server, channel] : channels) channel->close();
}

std::shared_ptr<const RoutingTable> Routing::table() const {
  std::lock_guard lock(mutex_);
  return table_;
}

rpc::Task<Result<>> Routing::refresh(std::shared_ptr<const RoutingTable> seen, Deadline deadline) {
  auto turn = co_await refreshing_.take(1, deadline);
  if (!turn) co_return fail(turn.error().with("refreshing the routing table"));
  const auto now = table();
  if (now != seen) co_return Result<>{};
  std::function<void(schema::RoutingRequest::Builder, std::uint64_t)> fill =
      [known = now->version](schema::RoutingRequest::Builder body, std::uint64_t) { body.setKnown(known); };
  auto reply = co_await session_.query<rpc::method::GetRouting>(std::move(fill), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  auto next = decoded("GetRouting", [&] { return std::make_shared<const RoutingTable>(now->with(**reply)); });
  if (!next) co_return fail(std::move(next.error()));
  std::lock_guard lock(mutex_);
  // An unchanged table stays the same snapshot, so that the next caller asks again.
  if ((*next)->version != now->version || (*reply)->getFull()) table_ = std::move(*next);
  co_return Result<>{};
}

void Routing::note_version(std::uint64_t version) {
  {
    std::lock_guard lock(mutex_);
    if (background_ || version <= table_->version || table_->version == 0) return;
    background_ = true;
  }
  tasks_.spawn(runtime_.make_strand(), refresh_in_background(version));
}

rpc::Task<> Routing::refresh_in_background(std::uint64_t version) {
  auto seen = table();
  if (seen->version < version) {
    auto done = co_await refresh(seen, Deadline::after(runtime_.clock(), std::chrono::seconds(10)));
    if (!done) log_debug("routing_refresh", "error={}", log_quote(done.error().to_string()));
  }
  std::lock_guard lock(mutex_);
  background_ = false;
}

Result<std::shared_ptr<rpc::Channel>> Routing::channel(const RoutingTable& table, ServerId server) {
  auto found = table.servers.find(server);
  if (found == table.servers.end() || found->second.address.empty()) {
    return fail(Code::kUnavailable, "no address of chunkserver " + to_string(server) + " is known");
  }
  std::shared_ptr<rpc::Channel> old;
  {
    std::lock_guard lock(mutex_);
    auto& channel = channels_[server];
    if (channel && channel->address() == found->second.address) return channel;
    old =
        std::exchange(channel, rpc::Channel::create(runtime_, transport_, found->second.address, identity_));
    if (!old) return channel;
  }
  old->close();
  return this->channel(table, server);
}

}  // namespace cairn::client
