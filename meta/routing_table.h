// The routing table as everybody else sees it: immutable once published, so that it is read on any thread
// without a lock. Each entry carries the version at which it last changed; who knows an older version is sent
// only what changed since. Versions are ids of the metadata server (they grow across restarts, and with the
// era), so a version seen before a restart is never taken for a later one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "meta/cluster_records.h"
#include "store/base/ids.h"
#include "store/rpc/schema/cluster.capnp.h"

namespace cairn::meta {

struct RoutingMember {
  TargetId target;
  ServerId server;
  bool in_sync = false;
  bool operator==(const RoutingMember&) const = default;
};
struct RoutingGroup {
  GroupId id;
  Epoch epoch;
  std::vector<RoutingMember> members;
  bool barrier = false;
  bool reconcile = false;
  std::uint64_t version = 0;
  bool same_but_version(const RoutingGroup& other) const {
    return id == other.id && epoch == other.epoch && members == other.members && barrier == other.barrier &&
           reconcile == other.reconcile;
  }
};
struct RoutingServer {
  ServerId id;
  std::string address;
  schema::ServerState state = schema::ServerState::UP;
  bool operator==(const RoutingServer&) const = default;
};

struct RoutingTable {
  std::uint64_t version = 0;
  std::uint64_t oldest = 0;  // who knows less gets everything (entries may have gone since)
  std::vector<PoolRecord> pools;
  std::vector<RoutingServer> servers;
  std::vector<RoutingGroup> groups;  // by id
  std::uint32_t waiting_servers = 0;

  const RoutingGroup* find(GroupId id) const;
  // Everything if `known` is 0, older than `oldest`, or not ours (above `version`).
  void write_since(std::uint64_t known, schema::Routing::Builder out) const;
};

}  // namespace cairn::meta
