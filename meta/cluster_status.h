// What operators see: `cairn admin status | servers | groups --json`, and the space that users see. Pure
// functions of a copy of the state, so that they run beside the executor.
//
// status: {cluster_id, health, groups {total, whole, degraded, at_risk, lost}, servers [...], repair {...},
// files, objects, trash {files, bytes}, sessions, pools, corrupt {found, repaired}, unknown_chunks,
// waiting_servers, notes [text]}. health: ok; draining (all copies are there, but some on a server that is to
// be taken away); degraded (fewer copies than asked, at or above the minimum); at_risk (a group below its
// minimum, reconciling, or without a server that could take its writes); data_lost (every in-sync member of a
// group is gone for good). servers: {servers: [status's entry + labels, targets [...], counters]}. groups:
// {groups: [{id, epoch, state, members, ...}]}.
#pragma once

#include <cstdint>
#include <string>

#include "meta/cluster.h"
#include "meta/cluster_state.h"

namespace cairn::meta {

enum class GroupHealth : std::uint8_t { kWhole, kDegraded, kAtRisk, kLost };
GroupHealth health_of(const ClusterState& state, GroupId id, const GroupRecord& group);

// What is left to copy: as reported by joiners, and estimated for copies that wait for their turn.
struct RepairWork {
  std::uint64_t chunks_left = 0;
  std::uint64_t bytes_left = 0;
  std::uint64_t copies_going_on = 0;
  std::uint64_t copies_waiting = 0;
};
RepairWork repair_work(const ClusterState& state);

// Mean of the copy rate over the last seconds; 0 when nothing was copied in them. One instance, used by one
// thread at a time.
class CopyRate {
 public:
  void add(std::uint64_t bytes, TimePoint now);
  std::uint64_t bytes_per_second(TimePoint now) const;

 private:
  void decay(TimePoint now);
  double bytes_ = 0;  // decays with time constant kWindow
  TimePoint at_{};
  TimePoint moved_{};  // when bytes were last copied
};

struct StatusInput {
  ClusterState state;
  ClusterId cluster;
  NamespaceCounts counts;
  std::uint64_t bytes_per_second = 0;
  std::uint64_t routing_version = 0;
  std::uint32_t waiting_servers = 0;
  std::uint64_t purges_behind = 0;  // servers that have purge orders to do
  TimePoint now{};
};
std::string status_json(const StatusInput& input);
std::string servers_json(const StatusInput& input);
std::string groups_json(const StatusInput& input);

SpaceInfo space_of(const ClusterState& state, std::uint32_t near_full_percent);

}  // namespace cairn::meta
