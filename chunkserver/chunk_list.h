// Asks another member for a page of its chunks.
#pragma once

#include "chunkserver/group.h"

namespace cairn::chunkserver {

rpc::Task<Result<ChunkPage>> list_chunks(GroupEnv& env, GroupMember member, GroupId group,
                                         std::uint32_t slots, Epoch epoch, std::optional<ChunkId> after);

}  // namespace cairn::chunkserver
