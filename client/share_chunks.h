// Chunks of one file become part of another without a byte being moved: docs/layouts.md.
#pragma once

#include "client/leases.h"

namespace cairn::client {

struct ChunkShare {
  std::uint64_t from = 0;  // chunk indices
  std::uint64_t to = 0;
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;  // of the source in these chunks; refused if it has more or fewer
};
// Whether some of these chunks are held by the file's own layer, or are dirty here. Under inode.mutex; its
// layout is known.
bool has_own_chunks(const Inode& inode, std::uint64_t from, std::uint64_t count);
// Takes the exclusive lease on the target, and on the source too if that has such chunks in its own layer:
// then what was written to it is made durable first. kRange, kInvalidArgument, kUnimplemented: they can't be
// shared, copy them. The rules are those of meta's share_chunks.
rpc::Task<Result<>> share_chunks(FileContext& context, Leases& leases, WriteBack& write_back,
                                 Reporter& reporter, InodeRef source, InodeRef target, ChunkShare what,
                                 Deadline deadline);

}  // namespace cairn::client
