// Truncation. The metadata server journals the new size and what is to be trimmed; the holder of the
// exclusive lease then cuts the boundary chunk and removes those behind it, and says so (trimDone) before the
// file may grow again.
#pragma once

#include "client/leases.h"

namespace cairn::client {

// Sets the size (and what else `change` names). Takes the exclusive lease.
// `shrink` no: a file that is longer already stays as it is.
enum class Shrink { kNo, kYes };
rpc::Task<Result<AttrRecord>> set_size(FileContext& context, Leases& leases, WriteBack& write_back,
                                       Reporter& reporter, InodeRef inode, SetAttr change, Shrink shrink,
                                       Deadline deadline);
// Waits until the journal is synced. Needed before stored bytes go that only records of before may need: a
// metadata server that lost power would come back with these.
rpc::Task<Result<>> sync_journal(FileContext& context, Deadline deadline);
// Sends a TRUNCATE or REMOVE; a chunk that is not there is well.
rpc::Task<Result<>> cut_chunk(FileContext& context, ChunkWrite write, Deadline deadline);
// Carries out layout.trim, if there is one. The exclusive lease is held. Chunks in `known_holes` are not
// there.
rpc::Task<Result<>> finish_trim(FileContext& context, InodeRef inode, RangeSet known_holes,
                                Deadline deadline);

}  // namespace cairn::client
