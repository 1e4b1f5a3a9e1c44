// Chunkservers come and report: joining, registering, heartbeats, and the operator's orders about servers.
// Each function is the part of a request that runs on the executor: it checks, journals, and changes the
// state. What follows for groups is left to the next reconfiguration, for which a request waits before it is
// answered.
//
// Nothing here trusts a chunkserver: numbers it reports about itself are bounded, ids it names must be known.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "meta/cluster_config.h"
#include "meta/cluster_reclaim.h"
#include "meta/cluster_state.h"
#include "store/base/rng.h"

namespace cairn::meta {

struct ReportedTarget {
  TargetId id;
  TargetCondition condition = TargetCondition::kOk;
  std::uint64_t capacity_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t available_bytes = 0;
  std::uint64_t chunks = 0;
};
struct ReportedProgress {
  GroupId group;
  TargetId target;
  ProgressReport report;
};

struct JoinInput {
  std::string address;
  std::vector<std::string> labels;
};
struct RegisterInput {
  ServerId server;
  std::string address;
  std::vector<std::string> labels;
  std::uint64_t boot = 0;
  JournalPosition journal;
  std::vector<ReportedTarget> targets;
};
struct HeartbeatInput {
  ServerId server;
  std::uint64_t boot = 0;
  std::uint64_t routing_version = 0;
  std::uint64_t fences = 0;
  std::uint64_t purges = 0;
  std::vector<ReportedTarget> targets;
  std::vector<ReportedProgress> progress;
  std::uint32_t foreground_ms = 0;
  std::uint64_t corrupt_found = 0;
  std::uint64_t corrupt_repaired = 0;
  std::uint64_t unknown_chunks = 0;
  std::vector<LeftOver> left_over;
};

// The id of the server at this address: a new one, or the one that stands there already (its disks are empty
// again, or the reply to an earlier call was lost). `connected`: whether that server has a live connection;
// then kExists. `purges_last`: orders so far do not concern a server without data.
Result<ServerId> join_server(ClusterState& state, Txn& txn, const JoinInput& input, std::uint64_t purges_last,
                             const std::function<bool(ServerId)>& connected);

// kNotFound: not a server of this cluster (forgotten, or another cluster's disks). kNeedsOperator: a disk
// belongs to another server. `input.journal` was checked before (meta/journal_guard.h).
Result<> register_server(ClusterState& state, Txn& txn, const RegisterInput& input, TimePoint arrived);

struct HeartbeatEffect {
  bool reconfigure = false;        // something that groups depend on changed
  std::uint64_t bytes_copied = 0;  // since the last report, for the rate of repair
};
// kNotServing: this process did not register since we started, or another one did after it: register first.
Result<HeartbeatEffect> apply_heartbeat(ClusterState& state, const HeartbeatInput& input,
                                        std::uint64_t purges_visible, TimePoint arrived);

enum class DrainOrder { kDrain, kUndrain };
Result<> set_draining(ClusterState& state, Txn& txn, ServerId server, DrainOrder order);
// A dead server is removed with its targets; of a live one only targets that it lost (kNotPermitted if there
// are none). kNeedsOperator if a group's last good copy stood there, unless the loss is accepted (the caller
// then runs accept_losses()).
enum class Loss { kRefuse, kAccept };
Result<> forget_server(ClusterState& state, Txn& txn, ServerId server, Loss loss);

}  // namespace cairn::meta
