// From data directories to opened targets. An empty directory is formatted for this server; when all are
// empty the server first asks the metadata server for an identity (Join). Blocks; call from a thread outside
// the runtime.
#pragma once

#include <atomic>
#include <vector>

#include "chunkserver/chunkserver.h"
#include "store/disk/disk.h"

namespace cairn::chunkserver {

// Waits for the metadata server, as long as `stop` is false (then kCancelled), only if every directory is
// empty. kLocked: another process uses a directory; kWrongCluster, kCorrupt, kVersionMismatch as of the
// engine.
Result<std::vector<OpenedTarget>> open_targets(rpc::Runtime& runtime, rpc::Transport& transport,
                                               disk::Disk& disk, const ChunkserverConfig& config,
                                               const std::atomic<bool>& stop);

}  // namespace cairn::chunkserver
