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
  return {layer.chunk(index), layer.pool, inode.session, inode.id, inode.generation};
}

// Where a chunk of the file is read. Under inode.mutex; its layout is known.
inline ChunkTarget read_target(const Inode& inode, std::uint64_t index) {
  const Layer& layer = inode.layout.layer_of(index);
  return {layer.chunk(index), layer.pool, inode.session, inode.id, 0};
}

// The file's own layer holds the chunk now, or nobody does. Under inode.mutex.
inline void take_from_frozen(Inode& inode, std::uint64_t index) {
  if (inode.layout.frozen_layer_of(index) == nullptr) return;
  inode.layout.take_from_frozen(index);
  ++inode.layout_changes;
}

}  // namespace cairn::client
