// After all members of a group restarted: the head takes from every other member each chunk of which that one
// has a higher version, syncs, and reports it; until then nobody serves. What was acknowledged as durable is
// on every member, so only what was never synced can differ. Runs as a task of GroupEnv::tasks; ends by
// itself when the group has another epoch.
#pragma once

#include "chunkserver/group.h"

namespace cairn::chunkserver {

class Reconciler {
 public:
  static rpc::Task<> run(std::shared_ptr<Group> group, GroupConfig config);

 private:
  static bool current(Group& group, const GroupConfig& config);
  static rpc::Task<Result<>> take_from(std::shared_ptr<Group> group, GroupConfig config, GroupMember member);
  static rpc::Task<Result<>> take_chunk(std::shared_ptr<Group> group, Epoch epoch, GroupMember member,
                                        ChunkId chunk);
};

}  // namespace cairn::chunkserver
