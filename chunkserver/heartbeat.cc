#include "chunkserver/heartbeat.h"

#include "chunkserver/wire.h"

namespace cairn::chunkserver {
namespace {

RoutingChange routing_of(schema::Routing::Reader from) {
  RoutingChange out;
  out.version = from.getVersion();
  out.full = from.getFull();
  for (auto pool : from.getPools())
    out.pools.push_back({PoolId(pool.getId()), pool.getSlots(), pool.getMinReplicas()});
  for (auto server : from.getServers())
    out.servers.emplace_back(ServerId(server.getId()), server.getAddress().cStr());
  for (auto group : from.getGroups()) {
    GroupConfig config;
    config.id = group_of(group.getId());
    config.epoch = Epoch(group.getEpoch());
    config.barrier = group.getBarrier();
    config.reconcile = group.getReconcile();
    for (auto member : group.getMembers())
      config.members.push_back(
          {TargetId(member.getTarget()), ServerId(member.getServer()), member.getInSync()});
    out.groups.push_back(std::move(config));
  }
  return out;
}

}  // namespace

Orders orders_of(schema::HeartbeatReply::Reader from) {
  Orders out;
  out.lease = std::chrono::milliseconds(from.getLeaseMs());
  out.routing = routing_of(from.getRouting());
  out.fences = from.getFences();
  for (std::uint64_t session : from.getEnded()) out.ended.emplace_back(session);
  out.ended_below = SessionId(from.getEndedBelow());
  for (auto purge : from.getPurges())
    out.purges.push_back(
        {purge.getSequence(), DataId(purge.getData()), PoolId(purge.getPool()), purge.getChunks()});
  out.journal = position_of(from.getJournal());
  for (std::uint64_t target : from.getRetired()) out.retired.emplace_back(target);
  for (auto drop : from.getDrops())
    out.drops.push_back({group_of(drop.getGroup()), TargetId(drop.getTarget()), Epoch(drop.getEpoch())});
  return out;
}

}  // namespace cairn::chunkserver
