// What the metadata store keeps of servers, targets, pools, groups and of the two queues for chunkservers,
// with the keys.
//
// Every value: version u8 (1), then the fields in the order of the struct, little-endian; text and lists are
// preceded by their length (u32). decode() takes any bytes: what is not a record of a known version is
// kCorrupt or kVersionMismatch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "meta/key_prefixes.h"
#include "store/base/ids.h"
#include "store/base/result.h"

namespace cairn::meta {

struct ServerRecord {
  ServerId id;
  std::string address;
  std::vector<std::string> labels;  // "rack=a"
  bool draining = false;
  bool registered = false;  // it has registered at least once
  std::uint64_t boot = 0;   // of the process that registered last: another number means that it restarted
  std::uint64_t purges_done = 0;  // purge orders up to this sequence are done on every target (a lower bound)

  std::string encode() const;
  static Result<ServerRecord> decode(std::string_view bytes);
  bool operator==(const ServerRecord&) const = default;
};

struct TargetRecord {
  TargetId id;
  ServerId server;
  std::uint64_t capacity_bytes = 0;  // as last reported
  bool lost = false;                 // its server came back without it: the disk was wiped or taken away
  bool retired = false;  // no group uses it, and its server is draining: the operator may empty it

  std::string encode() const;
  static Result<TargetRecord> decode(std::string_view bytes);
  bool operator==(const TargetRecord&) const = default;
};

struct PoolRecord {
  PoolId id;
  std::uint32_t slots = 0;
  std::uint8_t replicas = 2;
  std::uint8_t min_replicas = 2;
  std::uint32_t chunk_size = 0;
  std::string failure_domain;  // "server", "target", or a label's name

  std::string encode() const;
  static Result<PoolRecord> decode(std::string_view bytes);
  bool operator==(const PoolRecord&) const = default;
};

struct GroupMember {
  TargetId target;
  bool in_sync = false;
  bool restarted =
      false;  // in the set, but its process restarted since: does not serve before the group reconciled
  bool returning = false;  // joiner that was a member not long ago
  std::uint64_t boot = 0;  // of its server's process when it entered, or restarted, in this epoch
  bool operator==(const GroupMember&) const = default;
};

// A member of the in-sync set that was taken out while it may still serve: nothing is acknowledged before it
// confirmed a routing table of at least `version`, its process is gone, or its lease ended.
struct RemovedMember {
  ServerId server;
  std::uint64_t boot = 0;
  std::uint64_t version = 0;
  bool operator==(const RemovedMember&) const = default;
};

struct GroupRecord {
  Epoch epoch;
  std::vector<GroupMember> members;  // chain order; the in-sync ones first, never none
  bool reconcile = false;            // every member of the set restarted
  std::vector<TargetId> away;        // former members that may return, the latest last
  std::vector<RemovedMember> removed;
  TargetId leaving;     // in-sync member that a joiner takes the place of (rebalance); 0: none
  Epoch loss_accepted;  // epoch at which the operator accepted a loss; 0: never

  std::size_t in_sync_count() const;
  const GroupMember* find(TargetId target) const;
  std::string encode() const;
  static Result<GroupRecord> decode(std::string_view bytes);
  bool operator==(const GroupRecord&) const = default;
};

struct PurgeRecord {
  DataId data;
  PoolId pool;
  std::uint32_t chunks = 0;

  std::string encode() const;
  static Result<PurgeRecord> decode(std::string_view bytes);
  bool operator==(const PurgeRecord&) const = default;
};

struct FenceRecord {
  SessionId session;

  std::string encode() const;
  static Result<FenceRecord> decode(std::string_view bytes);
  bool operator==(const FenceRecord&) const = default;
};

// Under sequence 0 of kFence: what remains of the fences that were trimmed.
struct FenceFloorRecord {
  SessionId ended_below;   // every session below this id has ended
  std::uint64_t last = 0;  // highest sequence handed out when this was written

  std::string encode() const;
  static Result<FenceFloorRecord> decode(std::string_view bytes);
  bool operator==(const FenceFloorRecord&) const = default;
};

std::string prefix_key(KeyPrefix prefix);
std::string server_key(ServerId id);
std::string target_key(TargetId id);
std::string pool_key(PoolId id);
std::string group_key(GroupId id);
std::string purge_key(std::uint64_t sequence);
std::string fence_key(std::uint64_t sequence);
// The numbers behind a key of the prefix; kCorrupt for a key of another length.
Result<std::uint64_t> number_of_key(std::string_view key);
Result<GroupId> group_of_key(std::string_view key);

}  // namespace cairn::meta
