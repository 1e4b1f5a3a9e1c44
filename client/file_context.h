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

}  // namespace cairn::client
