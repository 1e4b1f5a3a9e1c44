#include "meta/cluster_reclaim.h"

#include <algorithm>

#include "meta/repair_planner.h"

namespace cairn::meta {

bool does_without(const ClusterState& state, GroupId id, TargetId target) {
  auto found = state.groups.find(id);
  if (found == state.groups.end()) return false;
  const GroupRecord& group = found->second.record;
  const PoolRecord& pool = state.pools.at(id.pool);
  if (group.find(target) != nullptr || group.reconcile || !group.removed.empty() || group.leaving.valid())
    return false;
  const bool all_serve =
      std::ranges::all_of(group.members, [&](const GroupMember& member) { return state.serving(member); });
  return all_serve && good_copies(state, group) >= pool.replicas;
}

std::vector<DropOrder> order_drops(ClusterState& state, Txn& txn, ServerId server,
                                   const std::vector<LeftOver>& left_over, std::size_t max) {
  std::vector<DropOrder> orders;
  for (const LeftOver& here : left_over) {
    if (orders.size() == max) break;
    auto target = state.targets.find(here.target);
    if (target == state.targets.end() || target->second.record.server != server ||
        !does_without(state, here.group, here.target))
      continue;
    GroupRecord& group = state.groups.at(here.group).record;
    if (std::erase(group.away, here.target) > 0) txn.put(group_key(here.group), group.encode());
    orders.push_back({here.group, here.target, group.epoch});
  }
  return orders;
}

}  // namespace cairn::meta
