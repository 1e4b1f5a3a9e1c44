// Copying up: the first write to a chunk that the file shares with others goes, with the bytes around it,
// into the file's own layer (docs/layouts.md).
#pragma once

#include "client/file_context.h"

namespace cairn::client {

// What is to be stored of a chunk of which `length` bytes lie below the file's end: one run, from the
// beginning of the chunk. `bytes` stay as they are until it ends.
rpc::Task<Result<std::vector<ChunkBytes::Run>>> with_shared_bytes(FileContext& context, ChunkTarget shared,
                                                                  std::shared_ptr<const ChunkBytes> bytes,
                                                                  std::uint32_t length, Deadline deadline);
// The first `length` bytes of a chunk; what it lacks is zeros.
rpc::Task<Result<rpc::Buffer>> read_shared(FileContext& context, ChunkTarget shared, std::uint32_t length,
                                           Deadline deadline);

}  // namespace cairn::client
