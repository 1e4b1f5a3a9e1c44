// Applies one mutation to one target's engine. Pure of any chain logic; blocks on the disk: pool threads
// only.
#pragma once

#include <optional>
#include <string>

#include "chunkserver/write_spec.h"
#include "store/base/result.h"
#include "store/disk/chunk_engine.h"
#include "store/rpc/message.h"

namespace cairn::chunkserver {

enum class Onto {
  kStored,   // the stored content, which must have version `spec.base` (kStale if not)
  kNothing,  // whatever is stored, below `spec.version`, is dropped: it is not what the chain holds
};

// Stores `spec` at `spec.version`. That version or, onto kStored, one above is stored: success, nothing is
// done (a hop that was sent again). Errors as of the engine; after an error nothing changed, except that kIo
// leaves that open.
Result<disk::ChunkInfo> apply_write(disk::ChunkEngine& engine, const WriteSpec& spec, Bytes payload,
                                    Onto onto);

// Whether make_whole_blocks() has to read stored bytes (then it needs the engine, and a pool thread).
bool needs_stored_bytes(const WriteSpec& spec, std::size_t payload_bytes,
                        const std::optional<disk::ChunkInfo>& stored);
// Makes the bytes of a write whole blocks with checksums, reading what its edges cover of the stored content,
// so that every member stores the same bytes under the same checksums. `stored`: the chunk as it is, nullopt
// if there is none. Changes spec.offset and spec.checksums, and payload if it had to grow. kCorrupt:
// `bad_payload` tells whether the writer's own bytes do not match its checksums, or a stored block does not.
Result<> make_whole_blocks(disk::ChunkEngine* engine, WriteSpec& spec, rpc::Buffer& payload,
                           const std::optional<disk::ChunkInfo>& stored, bool& bad_payload);

// What `spec` makes of `content`, in memory: how a joiner applies a hop to a chunk that it just fetched.
std::string apply_to_bytes(std::string content, const WriteSpec& spec, Bytes payload);

disk::WriteOptions options_of(const WriteSpec& spec);

}  // namespace cairn::chunkserver
