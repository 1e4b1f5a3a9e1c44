// Between Cap'n Proto messages and plain structs, at the service's edge. Readers may throw kj::Exception on
// malformed input: call these under the service's guard, before the first co_await.
#pragma once

#include <vector>

#include "chunkserver/write_spec.h"
#include "store/base/ids.h"
#include "store/disk/chunk_engine.h"
#include "store/rpc/message.h"
#include "store/rpc/methods.h"

namespace cairn::chunkserver {

ChunkId chunk_of(schema::ChunkId::Reader from);
Version version_of(schema::Version::Reader from);
Digest digest_of(schema::Digest::Reader from);
GroupId group_of(schema::GroupId::Reader from);
JournalPosition position_of(schema::JournalPosition::Reader from);
void set_chunk(schema::ChunkId::Builder to, const ChunkId& chunk);
void set_version(schema::Version::Builder to, const Version& version);
void set_digest(schema::Digest::Builder to, const Digest& digest);
void set_group(schema::GroupId::Builder to, const GroupId& group);
void set_position(schema::JournalPosition::Builder to, const JournalPosition& position);

std::vector<BlockChecksum> checksums_of(capnp::List<std::uint64_t>::Reader from);

// kInvalidArgument: an unknown kind, a range past the largest chunk, checksums that do not fit the payload, a
// payload where none belongs. What passes here every engine can do.
Result<WriteSpec> write_spec_of(schema::WriteRequest::Reader from, std::size_t payload_bytes);
rpc::OutMessage forward_message(const WriteSpec& spec, Epoch epoch, TargetId target,
                                const rpc::Buffer& payload);
WriteOutcome outcome_of(schema::WriteReply::Reader from);
rpc::OutMessage write_reply(const WriteOutcome& outcome);

// The pool is not on the wire: it is the group's.
disk::ChunkInfo info_of(schema::ChunkEntry::Reader from, PoolId pool);
void set_entry(schema::ChunkEntry::Builder to, const disk::ChunkInfo& info);

}  // namespace cairn::chunkserver
