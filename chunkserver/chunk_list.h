// Asks another member for a page of its chunks.
#pragma once

#include "chunkserver/group.h"

namespace cairn::chunkserver {

enum class ListSync { kNo, kFirst };  // kFirst: what is listed is on the member's disk

rpc::Task<Result<ChunkPage>> list_chunks(GroupEnv& env, GroupMember member, GroupId group,
                                         std::uint32_t slots, Epoch epoch, std::optional<ChunkId> after,
                                         ListSync sync = ListSync::kNo);

}  // namespace cairn::chunkserver
