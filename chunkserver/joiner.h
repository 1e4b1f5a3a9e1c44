// Brings one group of this target in sync, in one epoch: compares every chunk with the tail, copies what
// differs, syncs, and says so in the next heartbeat. Writes go on meanwhile: their hops come here too
// (group_hop.cc), and the ledger says which chunks they may be applied to.
//
// Where this target has a higher version than the tail (a write that was never committed), the head first
// gives the chunk a new version, so that versions on a disk never go back. A chunk that only this target
// knows is set aside: not served, counted and reported, never deleted. Runs as a task of GroupEnv::tasks;
// ends by itself when the group has another epoch.
#pragma once

#include "chunkserver/group.h"

namespace cairn::chunkserver {

class Joiner {
 public:
  static rpc::Task<> run(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger);

 private:
  using Infos = std::vector<disk::ChunkInfo>;
  static rpc::Task<Result<>> walk(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger);
  static rpc::Task<Result<ChunkPage>> tail_page(std::shared_ptr<Group> group, std::optional<ChunkId> after);
  static void compare(Group& group, JoinLedger& ledger, const Infos& theirs, const Infos& own);
  static rpc::Task<> copy_one(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger, ChunkId chunk,
                              std::shared_ptr<Quota> lanes, Quota::Grant lane);
  static rpc::Task<bool> complete(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger);
};

}  // namespace cairn::chunkserver
