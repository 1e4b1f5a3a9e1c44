// One step of the cluster's configuration: looks at the state, journals what must change (first layout,
// planned changes of groups, confirmed removals, minimum of the pool, targets forgotten), and makes the
// routing table that follows.
//
// Runs as one operation on the executor. The state is changed at once, so that the next step builds on it;
// the table may be shown to others only when the journal has *synced* the operation (cluster_impl.cc does
// that), because an epoch that a power cut takes back would be handed out twice.
#pragma once

#include <memory>
#include <set>

#include "meta/cluster_config.h"
#include "meta/cluster_state.h"
#include "meta/routing_table.h"
#include "store/base/rng.h"

namespace cairn::meta {

struct Reconfiguration {
  std::shared_ptr<const RoutingTable> table;  // null: nothing to show that was not shown before
  bool journaled = false;                     // records were written: sync before the table is published
  std::set<ServerId> concerned;               // servers with a group whose entry changed
  std::vector<ServerId> dead;                 // dead as of this table
};

// `shown` is the table made by the step before (null at the start).
Result<Reconfiguration> reconfigure(ClusterState& state, Txn& txn, const ClusterConfig& config,
                                    const std::shared_ptr<const RoutingTable>& shown, TimePoint now,
                                    Rng& rng);

// Groups whose whole in-sync set is lost go on with the best that is left: the latest former member that is
// there, else new and empty. Only when the operator accepted the loss. Returns how many.
Result<std::size_t> accept_losses(ClusterState& state, Txn& txn, const ClusterConfig& config, Rng& rng);

// Every member of the in-sync set is lost for good.
bool data_lost(const ClusterState& state, const GroupRecord& group);

}  // namespace cairn::meta
