// The cluster as the metadata server knows it: records and, beside each, what is known only since this
// process started (who is up, what was reported). Plain data; owned by the executor thread. The planner, the
// status page and the tests read it; only cluster_registry.cc, the reconfiguration in cluster_reconfigure.cc
// and the tests change it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "meta/cluster_records.h"
#include "meta/placement.h"
#include "meta/txn.h"
#include "store/base/clock.h"

namespace cairn::meta {

// kUnknown: not heard of since we started; it may still hold a lease that our predecessor gave it.
enum class Liveness : std::uint8_t { kUnknown, kUp, kSuspect, kDead };
enum class TargetCondition : std::uint8_t {
  kOk,
  kNearFull,
  kFull,
  kFailed,
  kReadOnly,
  kSlow
};  // as in cluster.capnp
enum class ProgressState : std::uint8_t { kCopying, kCaughtUp, kReconciling, kReconciled, kFailed };
std::string_view name_of(Liveness liveness);
std::string_view name_of(TargetCondition condition);

// What a target is worth to a group now.
enum class Fitness : std::uint8_t {
  kFit,      // its server is up and it can be read (kReadOnly is fit, but evacuating)
  kUnknown,  // its server is not heard of since we started
  kDown,     // its server is dead
  kFailed,   // its server is up, the disk is not usable
  kLost,     // gone for good: wiped, or its server was forgotten
};

struct ClusterServer {
  ServerRecord record;
  Liveness liveness = Liveness::kUnknown;
  bool registered = false;  // since this process of ours started
  bool refused = false;     // its connection closed and its address refuses: the process is gone
  TimePoint heard{};        // arrival of its last register or heartbeat
  TimePoint down_since{};
  bool death_published = false;  // the routing table without it is journaled and published
  std::uint64_t routing_known = 0;
  std::uint64_t fences = 0;
  std::uint64_t purges = 0;
  std::uint64_t corrupt_found = 0;
  std::uint64_t corrupt_repaired = 0;
  std::uint64_t unknown_chunks = 0;
  std::uint64_t groups_left_over = 0;  // that its targets are not in and still have chunks of
  std::uint32_t foreground_ms = 0;
  bool up() const { return liveness == Liveness::kUp || liveness == Liveness::kSuspect; }
};

struct ClusterTarget {
  TargetRecord record;
  TargetCondition condition = TargetCondition::kOk;
  std::uint64_t used_bytes = 0;
  std::uint64_t available_bytes = 0;
  std::uint64_t chunks = 0;
};

struct ProgressReport {
  Epoch epoch;
  ProgressState state = ProgressState::kCopying;
  std::uint64_t chunks_left = 0;
  std::uint64_t bytes_left = 0;
  std::uint64_t bytes_copied = 0;
};

struct ClusterGroup {
  GroupRecord record;
  std::map<TargetId, ProgressReport> reports;  // of this epoch
  std::optional<TimePoint> reconcile_since;    // when it began to wait for members
};

struct ClusterState {
  TimePoint started{};
  std::optional<TimePoint> first_register;  // since we started; for the first layout
  std::optional<TimePoint> last_new_server;
  std::map<ServerId, ClusterServer> servers;
  std::map<TargetId, ClusterTarget> targets;
  std::map<PoolId, PoolRecord> pools;
  std::map<GroupId, ClusterGroup> groups;

  // Reads every record. kCorrupt and kVersionMismatch name the record.
  static Result<ClusterState> load(Txn& txn, TimePoint now);

  const ClusterServer* server_of(TargetId target) const;
  Fitness fitness(TargetId target) const;
  // To be replaced although it works: its server is draining, or its disk only reads.
  bool evacuating(TargetId target) const;
  bool read_only(TargetId target) const;
  std::uint64_t boot_of(TargetId target) const;  // of its server's latest process; 0: none
  std::string domain_of(const PoolRecord& pool, TargetId target) const;
  // In the set, up, working, and its process has all it held: it may serve.
  bool serving(const GroupMember& member) const;
  // Reconciling, and not everybody who must take part is there.
  bool waiting(const GroupRecord& group) const;
  // Failure domains of all targets that are not lost, up or not.
  std::size_t domains(const PoolRecord& pool) const;
  // All targets and memberships, for the choice of new members. A group's member that is about to leave does
  // not count.
  PlacementMap placement_map(const PoolRecord& pool, std::uint32_t near_full_percent) const;

  // Recomputes who is up from what was heard. True if anything changed.
  bool refresh_liveness(TimePoint now, Duration lease, Duration suspect);
};

}  // namespace cairn::meta
