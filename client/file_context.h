// What the parts of the file system share, and how they answer the server.
#pragma once

#include "client/chunk_io.h"
#include "client/inode_cache.h"

namespace cairn::client {

struct FileContext {
  rpc::Runtime& runtime;
  Session& session;
  ChunkIo& chunks;
  InodeCache& inodes;
  const ClientOptions& options;
  rpc::TaskGroup& tasks;
  Budget& dirty_memory;  // bytes written and not yet stored
  Budget& ahead_memory;  // bytes read ahead

  Deadline deadline() const { return Deadline::after(runtime.clock(), options.timeout); }
};

// The state of an open file; made when first needed. Under inode.mutex.
inline FileData& file_of(const FileContext& context, Inode& inode) {
  if (!inode.file) inode.file = std::make_unique<FileData>(context.runtime);
  return *inode.file;
}

// Where the holder of the exclusive lease writes a chunk of the file. Under inode.mutex; its layout is known.
inline ChunkTarget write_target(const Inode& inode, std::uint64_t index) {
  const Layer& layer = inode.layout.layers.front();
  const ChunkId chunk{layer.data, static_cast<std::uint32_t>(index), 0};
  return {chunk, layer.pool, inode.session, inode.id, inode.generation};
}

}  // namespace cairn::client
