// File locks as messages.
#pragma once

#include "client/file_system.h"
#include "store/rpc/methods.h"

namespace cairn::client {

struct NamedLock {
  InodeId inode;
  LockSpec lock;
};
// A wait that ended at the server. change: number of the change to this session's locks; 0: nothing changed.
struct SettledLock {
  std::uint64_t ticket = 0;
  bool granted = false;  // else it would have closed a circle
  std::uint64_t change = 0;
};

inline void encode(const NamedLock& from, schema::FileLock::Builder to) {
  to.setInode(from.inode.value());
  to.setKind(static_cast<schema::LockKind>(from.lock.kind));
  to.setType(static_cast<schema::LockType>(from.lock.type));
  to.setOwner(from.lock.owner);
  to.setFirst(from.lock.range.first);
  to.setLast(from.lock.range.last);
  to.setPid(from.lock.pid);
}

}  // namespace cairn::client
