// What the metadata server answers to a heartbeat, as plain structs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "chunkserver/group_config.h"
#include "store/base/clock.h"
#include "store/rpc/methods.h"

namespace cairn::chunkserver {

struct PurgeOrder {
  std::uint64_t sequence = 0;
  DataId data;
  PoolId pool;
  std::uint32_t chunks = 0;
};

// What `target` has of a group may go, which is whole without it in exactly this epoch.
struct DropOrder {
  GroupId group;
  TargetId target;
  Epoch epoch;
};

struct PoolEntry {
  PoolId id;
  std::uint32_t slots = 0;
  std::uint8_t min_replicas = 1;
};

struct RoutingChange {
  std::uint64_t version = 0;
  bool full = false;  // groups that are not in it do not exist
  std::vector<PoolEntry> pools;
  std::vector<std::pair<ServerId, std::string>> servers;
  std::vector<GroupConfig> groups;  // slots and min_replicas are not filled in
};

struct Orders {
  Duration lease{0};
  RoutingChange routing;
  std::uint64_t fences = 0;
  std::vector<SessionId> ended;
  SessionId ended_below;
  std::vector<PurgeOrder> purges;
  JournalPosition journal;
  std::vector<TargetId> retired;
  std::vector<DropOrder> drops;
};

// May throw kj::Exception on a malformed message.
Orders orders_of(schema::HeartbeatReply::Reader from);

}  // namespace cairn::chunkserver
