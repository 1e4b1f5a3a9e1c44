#include "chunkserver/copy_in.h"

namespace cairn::chunkserver {

Result<Installed> install_copy(disk::ChunkEngine& engine, const FetchedChunk& copy) {
  const disk::ChunkInfo& info = copy.info;
  auto own = engine.stat(info.pool, info.chunk);
  if (!own && own.error().code() != Code::kNotFound) return fail(std::move(own.error()));
  if (own && own->version == info.version) {
    const bool same = own->state == info.state && own->digest == info.digest && own->length == info.length;
    return Installed{same, own->version};
  }
  if (own && own->version > info.version) return Installed{false, own->version};
  disk::WriteOptions options;
  options.pool = info.pool;
  options.version = info.version;
  options.request = info.last_request;
  options.owner_hint = info.owner_hint;
  options.object = info.object;
  if (info.state == disk::ChunkState::kAbsent) {
    TRYV(engine.make_absent(info.chunk, options));
    return Installed{true, info.version};
  }
  TRYV(engine.put(info.chunk, copy.bytes.bytes(), copy.checksums, disk::ChunkEngine::PutMode::kReplaceLower,
                  options));
  return Installed{true, info.version};
}

}  // namespace cairn::chunkserver
