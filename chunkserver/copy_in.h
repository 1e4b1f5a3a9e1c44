// Installs a chunk's whole content as another member sent it. Blocks on the disk: pool threads only.
#pragma once

#include "chunkserver/group.h"

namespace cairn::chunkserver {

struct Installed {
  bool done = false;  // the target now holds that version, or held the same bytes under it before
  Version own;  // not done: the higher version, or the same one of other bytes, that it holds. Nothing was
                // changed
};

Result<Installed> install_copy(disk::ChunkEngine& engine, const FetchedChunk& copy);

}  // namespace cairn::chunkserver
