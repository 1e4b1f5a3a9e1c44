#include "chunkserver/fake_meta.h"

#include <algorithm>

#include "chunkserver/wire.h"

namespace cairn::chunkserver {

using State = schema::HeartbeatRequest::Progress::State;

Result<> FakeMeta::listen(rpc::Transport& transport, const std::string& address) {
  identity_.role = rpc::Role::kMeta;
  identity_.cluster = [this] { return cluster_; };
  identity_.id = [] { return std::uint64_t{1}; };
  identity_.program = "fake meta";
  TRY(server_, rpc::Server::start(runtime_, transport, address, *this, identity_));
  return {};
}

void FakeMeta::stop() {
  if (server_) server_->stop(Deadline::after(runtime_.clock(), std::chrono::milliseconds(50)));
  server_.reset();
}

void FakeMeta::add_server(ServerId server, TargetId target) {
  std::lock_guard lock(mutex_);
  servers_[server].target = target;
}

void FakeMeta::set_group(std::uint32_t slot, std::vector<TargetId> members) {
  std::lock_guard lock(mutex_);
  Group& group = groups_[slot];
  group.all = members;
  group.replicas = members.size();
  group.config.id = {kPool, slot};
  group.config.members.clear();
  for (TargetId target : members) {
    for (const auto& [id, server] : servers_)
      if (server.target == target) group.config.members.push_back({target, id, true});
    group.boots[target] = server_of(target)->boot;
  }
  change(group);
}

FakeMeta::Server* FakeMeta::server_of(TargetId target) {
  for (auto& [id, server] : servers_)
    if (server.target == target) return &server;
  return nullptr;
}
const FakeMeta::Server* FakeMeta::server_of(TargetId target) const {
  return const_cast<FakeMeta*>(this)->server_of(target);
}

bool FakeMeta::good(const Group& group, TargetId target) const {
  const Server* server = server_of(target);
  auto boot = group.boots.find(target);
  return server->up && !server->failed && boot != group.boots.end() && boot->second == server->boot;
}

void FakeMeta::change(Group& group) {
  group.config.epoch = Epoch(group.config.epoch.value() + 1);
  group.version = ++version_;
  group.progress.clear();
  group.config.barrier = !group.waits.empty();
}

void FakeMeta::plan() {
  for (auto& [slot, group] : groups_) plan_group(group);
}

void FakeMeta::plan_group(Group& group) {
  auto& members = group.config.members;
  // Removed members that confirmed, or are gone.
  const bool barrier = group.config.barrier;
  std::erase_if(group.waits, [&](const auto& wait) {
    const Server* server = server_of(wait.first);
    return !server->up || server->routing >= wait.second;
  });
  if (barrier && group.waits.empty()) {
    group.config.barrier = false;
    group.version = ++version_;
  }
  bool changed = false;
  const bool any_good =
      std::ranges::any_of(members, [&](const auto& m) { return m.in_sync && good(group, m.target); });
  const bool any_member_unregistered = std::ranges::any_of(
      members, [&](const auto& m) { return m.in_sync && server_of(m.target)->boot == 0; });
  if (any_member_unregistered) {
    // The first start: members enter with the boot they register with.
    for (const auto& m : members)
      if (group.boots[m.target] == 0) group.boots[m.target] = server_of(m.target)->boot;
    return;
  }
  for (auto& [target, boot] : group.boots)
    if (boot == 0) boot = server_of(target)->boot;
  if (any_good) {
    changed = std::erase_if(members, [&](const auto& m) { return m.in_sync && !good(group, m.target); }) > 0;
    if (group.config.reconcile) {
      group.config.reconcile = false;
      changed = true;
    }
  } else {
    const bool all_up = std::ranges::all_of(members, [&](const auto& m) {
      return !m.in_sync || (server_of(m.target)->up && !server_of(m.target)->failed);
    });
    const bool head_done = group.config.reconcile && !members.empty() &&
                           group.progress[members.front().target].state == State::RECONCILED &&
                           group.progress[members.front().target].epoch == group.config.epoch.value();
    std::map<TargetId, std::uint64_t> now;
    for (const auto& m : members)
      if (m.in_sync) now[m.target] = server_of(m.target)->boot;
    if (head_done && group.reconciling == now) {
      const GroupMember head = members.front();
      members = {head};
      group.config.reconcile = false;
      group.boots[head.target] = server_of(head.target)->boot;
      changed = true;
    } else if (all_up && (!group.config.reconcile || group.reconciling != now)) {
      std::erase_if(members, [](const auto& m) { return !m.in_sync; });
      group.config.reconcile = true;
      group.reconciling = now;
      changed = true;
    }
    if (changed) change(group);
    return;
  }
  // Joiners.
  changed = std::erase_if(members,
                          [&](const auto& m) {
                            return !m.in_sync && (!server_of(m.target)->up || server_of(m.target)->failed ||
                                                  server_of(m.target)->boot != group.boots[m.target]);
                          }) > 0 ||
            changed;
  if (!changed) {
    for (auto& m : members) {
      const Progress progress = group.progress[m.target];
      if (m.in_sync || progress.state != State::CAUGHT_UP || progress.epoch != group.config.epoch.value())
        continue;
      m.in_sync = true;
      changed = true;
      break;
    }
  }
  const bool joining = std::ranges::any_of(members, [](const auto& m) { return !m.in_sync; });
  if (!joining) {
    for (TargetId target : group.all) {
      const Server* server = server_of(target);
      if (server == nullptr) continue;  // its disk was wiped
      const bool member = std::ranges::any_of(members, [&](const auto& m) { return m.target == target; });
      if (member || !server->up || server->failed || server->kept_out || group.waits.contains(target))
        continue;
      for (const auto& [id, s] : servers_)
        if (s.target == target) members.push_back({target, id, false});
      group.boots[target] = server->boot;
      changed = true;
      break;
    }
  }
  if (changed) change(group);
}

void FakeMeta::server_died(ServerId server) {
  std::lock_guard lock(mutex_);
  servers_[server].up = false;
  plan();
}

void FakeMeta::replace(TargetId by) {
  std::lock_guard lock(mutex_);
  for (auto& [slot, group] : groups_) {
    std::erase_if(group.all, [&](TargetId target) { return server_of(target) == nullptr; });
    if (std::ranges::find(group.all, by) == group.all.end()) group.all.push_back(by);
  }
  plan();
}

void FakeMeta::all_died() {
  std::lock_guard lock(mutex_);
  for (auto& [id, server] : servers_) server.up = false;
}

void FakeMeta::remove_member(std::uint32_t slot, TargetId target) {
  std::lock_guard lock(mutex_);
  Group& group = groups_[slot];
  std::erase_if(group.config.members, [&](const auto& m) { return m.target == target; });
  group.waits[target] = version_ + 1;
  change(group);
}

void FakeMeta::keep_out(TargetId target, bool out) {
  std::lock_guard lock(mutex_);
  server_of(target)->kept_out = out;
  plan();
}

void FakeMeta::end_session(SessionId session) {
  std::lock_guard lock(mutex_);
  ended_.push_back(session);
}

void FakeMeta::purge(DataId data, std::uint32_t chunks) {
  std::lock_guard lock(mutex_);
  purges_.push_back({purges_.size() + 1, data, kPool, chunks});
}

void FakeMeta::set_reclaim(bool on) {
  std::lock_guard lock(mutex_);
  reclaim_ = on;
}

void FakeMeta::order_drop(DropOrder order) {
  std::lock_guard lock(mutex_);
  extra_drops_.push_back(order);
}

std::vector<DropOrder> FakeMeta::drops_for(schema::HeartbeatRequest::Reader request) {
  std::vector<DropOrder> drops;
  const TargetId own = servers_.at(ServerId(request.getServer())).target;
  std::erase_if(extra_drops_, [&](const DropOrder& order) {
    if (order.target == own) drops.push_back(order);
    return order.target == own;
  });
  if (!reclaim_) return drops;
  for (auto entry : request.getLeftovers()) {
    auto group = groups_.find(entry.getGroup().getSlot());
    const TargetId target(entry.getTarget());
    if (group == groups_.end()) continue;
    const GroupConfig& config = group->second.config;
    const bool whole = config.members.size() == group->second.replicas && !config.barrier &&
                       !config.reconcile && std::ranges::all_of(config.members, [&](const GroupMember& m) {
                         return m.in_sync && m.target != target && good(group->second, m.target);
                       });
    if (whole) drops.push_back({config.id, target, config.epoch});
  }
  return drops;
}

void FakeMeta::set_silent(bool silent) {
  std::lock_guard lock(mutex_);
  silent_ = silent;
}

void FakeMeta::set_lease(Duration lease) {
  std::lock_guard lock(mutex_);
  lease_ = lease;
}

GroupConfig FakeMeta::group(std::uint32_t slot) const {
  std::lock_guard lock(mutex_);
  return groups_.at(slot).config;
}

std::string FakeMeta::address_of(TargetId target) const {
  std::lock_guard lock(mutex_);
  return server_of(target)->address;
}

bool FakeMeta::whole(std::size_t replicas) const {
  std::lock_guard lock(mutex_);
  return std::ranges::all_of(groups_, [&](const auto& entry) {
    const GroupConfig& config = entry.second.config;
    const auto in_sync = std::ranges::count_if(config.members, &GroupMember::in_sync);
    return static_cast<std::size_t>(in_sync) == replicas && config.members.size() == replicas &&
           !config.barrier && !config.reconcile &&
           std::ranges::all_of(config.members, [&](const auto& m) { return good(entry.second, m.target); });
  });
}

std::uint64_t FakeMeta::fences_confirmed(ServerId server) const {
  std::lock_guard lock(mutex_);
  return servers_.at(server).fences;
}
std::uint64_t FakeMeta::purges_confirmed(ServerId server) const {
  std::lock_guard lock(mutex_);
  return servers_.at(server).purges;
}
std::uint64_t FakeMeta::unknown_chunks(ServerId server) const {
  std::lock_guard lock(mutex_);
  return servers_.at(server).unknown;
}
std::uint64_t FakeMeta::left_over(ServerId server) const {
  std::lock_guard lock(mutex_);
  return servers_.at(server).left_over;
}
std::uint64_t FakeMeta::heartbeats(ServerId server) const {
  std::lock_guard lock(mutex_);
  return servers_.at(server).heartbeats;
}
std::uint64_t FakeMeta::registrations() const {
  std::lock_guard lock(mutex_);
  return registrations_;
}
TargetId FakeMeta::target_of(ServerId server) const {
  std::lock_guard lock(mutex_);
  return servers_.at(server).target;
}

rpc::Task<Result<rpc::OutMessage>> FakeMeta::handle(rpc::Request request) {
  bool silent = false;
  {
    std::lock_guard lock(mutex_);
    silent = silent_;
  }
  if (silent) {
    auto slept = co_await rpc::sleep_until(runtime_, request.deadline.at);
    if (!slept) co_return fail(std::move(slept.error()));
  }
  switch (request.method) {
    case rpc::method::Join::kNumber:
      co_return join();
    case rpc::method::Register::kNumber:
      co_return registered(request.body<rpc::method::Register>());
    case rpc::method::Heartbeat::kNumber:
      co_return beaten(request.body<rpc::method::Heartbeat>());
    default:
      co_return fail(Code::kUnimplemented, "not in this test");
  }
}

rpc::OutMessage FakeMeta::join() {
  std::lock_guard lock(mutex_);
  const ServerId server(1000 + servers_.size());
  servers_[server];
  rpc::OutMessage reply;
  auto body = reply.body<schema::JoinReply>();
  body.setCluster(cluster_.value());
  body.setServer(server.value());
  body.setEra(1);
  return reply;
}

rpc::OutMessage FakeMeta::registered(schema::RegisterRequest::Reader request) {
  std::lock_guard lock(mutex_);
  ++registrations_;
  Server& server = servers_[ServerId(request.getServer())];
  server.address = request.getAddress().cStr();
  server.up = true;
  server.boot = request.getBoot();
  server.routing = 0;
  if (request.getTargets().size() > 0) server.target = TargetId(request.getTargets()[0].getId());
  ++version_;  // its address
  plan();
  rpc::OutMessage reply;
  auto body = reply.body<schema::RegisterReply>();
  body.setLeaseMs(static_cast<std::uint32_t>(lease_.count() / 1'000'000));
  body.setHeartbeatMs(20);
  body.setEra(1);
  return reply;
}

rpc::OutMessage FakeMeta::beaten(schema::HeartbeatRequest::Reader request) {
  std::lock_guard lock(mutex_);
  Server& server = servers_[ServerId(request.getServer())];
  if (server.up && server.boot == request.getBoot()) {
    server.routing = request.getRoutingVersion();
    server.fences = request.getFences();
    server.purges = request.getPurges();
    server.unknown = request.getUnknownChunks();
    server.left_over = request.getLeftovers().size();
    ++server.heartbeats;
    server.failed =
        request.getTargets().size() > 0 && request.getTargets()[0].getState() == schema::TargetState::FAILED;
    for (auto progress : request.getProgress()) {
      auto group = groups_.find(progress.getGroup().getSlot());
      if (group == groups_.end()) continue;
      group->second.progress[TargetId(progress.getTarget())] = {progress.getEpoch(), progress.getState()};
    }
    plan();
  }
  rpc::OutMessage reply;
  auto body = reply.body<schema::HeartbeatReply>();
  body.setLeaseMs(static_cast<std::uint32_t>(lease_.count() / 1'000'000));
  const std::uint64_t known = request.getRoutingVersion();
  auto routing = body.initRouting();
  routing.setVersion(version_);
  routing.setFull(known == 0);
  auto pools = routing.initPools(1);
  pools[0].setId(kPool.value());
  pools[0].setSlots(slots_);
  pools[0].setMinReplicas(min_replicas_);
  auto servers = routing.initServers(static_cast<unsigned>(servers_.size()));
  unsigned at = 0;
  for (const auto& [id, s] : servers_) {
    servers[at].setId(id.value());
    servers[at++].setAddress(s.address);
  }
  std::vector<const Group*> changed;
  for (const auto& [slot, group] : groups_)
    if (group.version > known) changed.push_back(&group);
  auto groups = routing.initGroups(static_cast<unsigned>(changed.size()));
  for (unsigned i = 0; i < changed.size(); ++i) {
    const GroupConfig& config = changed[i]->config;
    chunkserver::set_group(groups[i].initId(), config.id);
    groups[i].setEpoch(config.epoch.value());
    groups[i].setBarrier(config.barrier);
    groups[i].setReconcile(config.reconcile);
    auto members = groups[i].initMembers(static_cast<unsigned>(config.members.size()));
    for (unsigned m = 0; m < config.members.size(); ++m) {
      members[m].setTarget(config.members[m].target.value());
      members[m].setServer(config.members[m].server.value());
      members[m].setInSync(config.members[m].in_sync);
    }
  }
  body.setFences(ended_.size());
  auto ended = body.initEnded(static_cast<unsigned>(ended_.size()));
  for (unsigned i = 0; i < ended_.size(); ++i) ended.set(i, ended_[i].value());
  auto purges = body.initPurges(static_cast<unsigned>(purges_.size()));
  for (unsigned i = 0; i < purges_.size(); ++i) {
    purges[i].setSequence(purges_[i].sequence);
    purges[i].setData(purges_[i].data.value());
    purges[i].setPool(purges_[i].pool.value());
    purges[i].setChunks(purges_[i].chunks);
  }
  const std::vector<DropOrder> orders = drops_for(request);
  auto drops = body.initDrops(static_cast<unsigned>(orders.size()));
  for (unsigned i = 0; i < orders.size(); ++i) {
    chunkserver::set_group(drops[i].initGroup(), orders[i].group);
    drops[i].setTarget(orders[i].target.value());
    drops[i].setEpoch(orders[i].epoch.value());
  }
  return reply;
}

}  // namespace cairn::chunkserver
