// The groups that this server's targets take part in, and the pools' numbers of slots. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "chunkserver/group.h"

namespace cairn::chunkserver {

class GroupTable {
 public:
  enum class Prefer { kInSync, kHead };

  // The group's member on `target`; target 0: the one on this server that can serve the request best.
  // kWrongEpoch: this server has none (by what it knows): the sender's routing table, or ours, is old.
  Result<std::shared_ptr<Group>> find(GroupId id, TargetId target, Prefer prefer) const;
  Result<std::shared_ptr<Group>> find(PoolId pool, const ChunkId& chunk, TargetId target,
                                      Prefer prefer) const;

  void set_slots(PoolId pool, std::uint32_t slots);
  std::uint32_t slots(PoolId pool) const;  // 0: unknown
  void add(std::shared_ptr<Group> group);
  std::shared_ptr<Group> get(GroupId id, TargetId target) const;  // null: none
  std::vector<std::shared_ptr<Group>> of(GroupId id) const;
  std::vector<std::shared_ptr<Group>> all() const;

 private:
  mutable std::shared_mutex mutex_;
  std::map<PoolId, std::uint32_t> slots_;                          // guarded by mutex_
  std::map<GroupId, std::vector<std::shared_ptr<Group>>> groups_;  // guarded by mutex_
};

}  // namespace cairn::chunkserver
