// Which chunks of former members may go: a chunkserver reports groups that its targets are not in and still
// have chunks of, and is told to drop those of groups that do without.
//
// A group does without a target when it has its full count of in-sync members, all serving and none about to
// leave, no joiner, no barrier and nothing to reconcile. Each of these members has synced what was ever
// acknowledged as durable: it synced on every durable write of its time, and all it copied before it was
// promoted, or reconciled. The epoch goes with the order, and the chunkserver asks each of them, in exactly
// that epoch, to list every chunk, synced, before it removes it. Executor thread only.
#pragma once

#include <vector>

#include "meta/cluster_state.h"

namespace cairn::meta {

struct LeftOver {
  GroupId group;
  TargetId target;
};
struct DropOrder {
  GroupId group;
  TargetId target;
  Epoch epoch;
};

bool does_without(const ClusterState& state, GroupId group, TargetId target);

// Orders for the reports of `server`, at most `max`. A target that is to drop a group is struck off its
// former members, in `txn` too, before anybody may take it for one that still has the chunks: sync the
// journal before the orders are sent.
std::vector<DropOrder> order_drops(ClusterState& state, Txn& txn, ServerId server,
                                   const std::vector<LeftOver>& left_over, std::size_t max);

}  // namespace cairn::meta
