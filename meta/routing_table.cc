#include "meta/routing_table.h"

#include <algorithm>

namespace cairn::meta {

const RoutingGroup* RoutingTable::find(GroupId id) const {
  auto found = std::ranges::lower_bound(groups, id, {}, &RoutingGroup::id);
  return found != groups.end() && found->id == id ? &*found : nullptr;
}

void RoutingTable::write_since(std::uint64_t known, schema::Routing::Builder out) const {
  const bool full = known < oldest || known > version;
  out.setVersion(version);
  out.setFull(full);
  out.setWaitingServers(waiting_servers);
  auto pool_list = out.initPools(static_cast<unsigned>(pools.size()));
  for (unsigned i = 0; i < pools.size(); ++i) {
    auto to = pool_list[i];
    to.setId(pools[i].id.value());
    to.setSlots(pools[i].slots);
    to.setReplicas(pools[i].replicas);
    to.setMinReplicas(pools[i].min_replicas);
    to.setChunkSize(pools[i].chunk_size);
  }
  auto server_list = out.initServers(static_cast<unsigned>(servers.size()));
  for (unsigned i = 0; i < servers.size(); ++i) {
    auto to = server_list[i];
    to.setId(servers[i].id.value());
    to.setAddress(servers[i].address);
    to.setState(servers[i].state);
  }
  auto changed = [&](const RoutingGroup& group) { return full || group.version > known; };
  auto group_list = out.initGroups(static_cast<unsigned>(std::ranges::count_if(groups, changed)));
  unsigned at = 0;
  for (const RoutingGroup& group : groups) {
    if (!changed(group)) continue;
    auto to = group_list[at++];
    to.initId().setPool(group.id.pool.value());
    to.getId().setSlot(group.id.slot);
    to.setEpoch(group.epoch.value());
    to.setBarrier(group.barrier);
    to.setReconcile(group.reconcile);
    to.setVersion(group.version);
    auto member_list = to.initMembers(static_cast<unsigned>(group.members.size()));
    for (unsigned m = 0; m < group.members.size(); ++m) {
      member_list[m].setTarget(group.members[m].target.value());
      member_list[m].setServer(group.members[m].server.value());
      member_list[m].setInSync(group.members[m].in_sync);
    }
  }
}

}  // namespace cairn::meta
