// What the routing table says of one group, as plain structs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/base/ids.h"

namespace cairn::chunkserver {

struct GroupMember {
  TargetId target;
  ServerId server;
  bool in_sync = false;
};

struct GroupConfig {
  GroupId id;
  Epoch epoch;
  std::vector<GroupMember> members;  // chain order; in-sync ones first
  bool barrier = false;     // a removed member may still serve: nothing is read, committed or acknowledged
  bool reconcile = false;   // all members restarted: nobody serves before the head compared them
  std::uint32_t slots = 0;  // of the pool
  std::uint8_t min_replicas = 1;  // of the pool
};

enum class Role : std::uint8_t {
  kOut,     // not a member
  kBooted,  // a member by a configuration made before this process started: waits for a newer one
  kJoiner,  // being brought in sync
  kInSync,
};

// One member's position in a configuration.
struct Place {
  Role role = Role::kOut;
  bool head = false;
  std::optional<GroupMember> source;     // tail, for a joiner; predecessor, for an in-sync member
  std::optional<GroupMember> successor;  // next in-sync member; for the tail: the joiner
  std::size_t in_sync = 0;
  std::size_t writable = 0;  // members that a write reaches: in sync, and the joiner
};

Place place_of(const GroupConfig& config, TargetId target);

}  // namespace cairn::chunkserver
