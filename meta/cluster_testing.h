// For tests of the cluster side: a state built from a few words, without wire, executor or clock.
#pragma once

#include <string>
#include <vector>

#include "meta/cluster_state.h"

namespace cairn::meta::testing {

constexpr PoolId kPool{1};
inline GroupId group_id(std::uint32_t slot) {
  return {kPool, slot};
}
// Server n has one target, n too, unless a test adds more.
inline ServerId server_id(std::uint64_t n) {
  return ServerId(n);
}
inline TargetId target_id(std::uint64_t n) {
  return TargetId(100 + n);
}

class StateBuilder {
 public:
  explicit StateBuilder(std::size_t servers, std::uint8_t replicas = 2, std::uint8_t min_replicas = 2) {
    PoolRecord pool;
    pool.id = kPool;
    pool.slots = 1;
    pool.replicas = replicas;
    pool.min_replicas = min_replicas;
    pool.chunk_size = 4 << 20;
    pool.failure_domain = "server";
    state.pools[kPool] = pool;
    for (std::uint64_t n = 1; n <= servers; ++n) add_server(n);
  }

  void add_server(std::uint64_t n) {
    ClusterServer& server = state.servers[server_id(n)];
    server.record.id = server_id(n);
    server.record.address = "cs" + std::to_string(n);
    server.record.registered = true;
    server.record.boot = 1;
    server.registered = true;
    server.liveness = Liveness::kUp;
    add_target(n, n);
  }
  void add_target(std::uint64_t target, std::uint64_t server) {
    ClusterTarget& to = state.targets[target_id(target)];
    to.record.id = target_id(target);
    to.record.server = server_id(server);
    to.record.capacity_bytes = 1 << 30;
    to.available_bytes = 1 << 30;
  }

  // "1 2 3+": in-sync members on targets 1 and 2, joiner on 3. A trailing ! marks one that restarted.
  ClusterGroup& group(std::uint32_t slot, const std::string& members) {
    ClusterGroup& group = state.groups[group_id(slot)];
    group.record = GroupRecord();
    group.record.epoch = Epoch(10);
    for (std::size_t at = 0; at < members.size(); ++at) {
      if (members[at] == ' ' || members[at] == '+' || members[at] == '!') continue;
      GroupMember member;
      member.target = target_id(static_cast<std::uint64_t>(members[at] - '0'));
      member.in_sync = members.substr(at + 1, 1) != "+";
      member.restarted = members.substr(at + 1, 1) == "!";
      member.boot = state.boot_of(member.target);
      group.record.members.push_back(member);
    }
    return group;
  }

  ClusterServer& server(std::uint64_t n) { return state.servers.at(server_id(n)); }
  ClusterTarget& target(std::uint64_t n) { return state.targets.at(target_id(n)); }
  void kill(std::uint64_t n, TimePoint at = {}) {
    server(n).liveness = Liveness::kDead;
    server(n).down_since = at;
  }
  void restart(std::uint64_t n) {
    server(n).liveness = Liveness::kUp;
    ++server(n).record.boot;
  }
  void report(std::uint32_t slot, std::uint64_t target, ProgressState progress) {
    ClusterGroup& group = state.groups.at(group_id(slot));
    ProgressReport& report = group.reports[target_id(target)];
    report.epoch = group.record.epoch;
    report.state = progress;
  }

  ClusterState state;
};

// The members in the notation of StateBuilder::group.
inline std::string members_text(const GroupRecord& record) {
  std::string out;
  for (const GroupMember& member : record.members) {
    if (!out.empty()) out += ' ';
    out += std::to_string(member.target.value() - 100);
    if (!member.in_sync) out += '+';
    if (member.restarted) out += '!';
  }
  return out;
}

}  // namespace cairn::meta::testing
