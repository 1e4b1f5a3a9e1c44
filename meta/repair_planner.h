// What each group's membership should be next: a pure function of the cluster's state, without IO, so that
// every rule can be tested with a table of situations and a simulation of thousands of faults.
//
// One call looks at every group and returns at most one change each; a change is one new epoch. Rules, in
// this order:
//  1. A member whose process restarted lost what it had not synced. While another member of the set serves,
//  restarted, dead
//     and failed members leave the set. If none serves and some restarted, the group reconciles: it waits for
//     the whole set (or the grace time), the head compares, and is then alone in the set. If all are down,
//     the group waits. The set never becomes empty; only targets lost for good are struck out while another
//     remains.
//  2. Joiners that went down leave; those that restarted begin again in a new epoch.
//  3. A joiner that caught up in exactly this epoch enters the set.
//  4. Members beyond `replicas` leave: draining ones first, then the one being moved away from, then the most
//  loaded. At
//     least `replicas` serving members stay. Joiners nobody needs leave. (Draining: of a server that the
//     operator drains, or on a disk that has become read-only: a source, but to be replaced.)
//  5. A group short of members takes one joiner (docs/replication.md knows one at a time): a former member
//  that came back
//     before anybody else, even in place of a replacement that is not half done; otherwise a replacement, at
//     once below min_replicas, else when the absent ones' grace time is over. Fewest copies first, bounded
//     per source and target.
//  6. When every group is whole: groups move from loaded to less loaded targets, one joiner a target at a
//  time.
#pragma once

#include <string>
#include <vector>

#include "meta/cluster_state.h"
#include "store/base/rng.h"

namespace cairn::meta {

struct PlannerOptions {
  Duration repair_grace = std::chrono::seconds(60);
  Duration reconcile_grace = std::chrono::seconds(30);
  std::uint32_t joiners_per_target = 4;
  bool rebalance = true;
  std::uint32_t near_full_percent = 90;
};

struct GroupChange {
  GroupId group;
  GroupRecord next;  // its epoch is still that of the present record: the caller gives the new one
  std::vector<GroupMember> removed;  // left the set: may still serve unless the caller knows better
  std::string reason;                // for the log
};

std::vector<GroupChange> plan_repair(const ClusterState& state, const PlannerOptions& options, TimePoint now,
                                     Rng& rng);

// Serving members that count towards `replicas`: not draining, not about to leave.
std::size_t good_copies(const ClusterState& state, const GroupRecord& group);
std::size_t serving_copies(const ClusterState& state, const GroupRecord& group);

}  // namespace cairn::meta
