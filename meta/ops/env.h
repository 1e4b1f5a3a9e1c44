// What an operation runs in. Operations are plain functions over a Txn: they look up what they need, say to
// the gate which inodes they read or change, and go on only when no other session's lease is in the way. They
// hold no state.
#pragma once

#include "meta/cluster.h"
#include "meta/inode_store.h"
#include "meta/lease_rows.h"
#include "meta/txn.h"

namespace cairn::meta::ops {

// The leases of other sessions, as an operation meets them. Executor thread only.
class LeaseGate {
 public:
  virtual ~LeaseGate() = default;
  // Another session's exclusive lease must become shared first.
  virtual void reads(InodeId inode) = 0;
  // Every other session's lease must be given back first.
  virtual void changes(InodeId inode) = 0;
  // Fails when something named above has to be waited for: the operation returns that error, its writes are
  // dropped, and it is run again from its beginning. Call after all reads that decide what is needed and
  // before the first write.
  virtual Result<> settle() = 0;
  // True if another session holds `inode` exclusively (what we know of its size and times may be old).
  virtual bool held_elsewhere(InodeId inode) = 0;
  // The inode is gone when this operation succeeds: nobody holds it any more.
  virtual void deleted(InodeId inode) = 0;
  // The inode has neither names nor opens when this operation succeeds, and is to be deleted a moment later.
  virtual void lingers(InodeId inode) = 0;
};

struct Env {
  Txn& txn;
  Cluster& cluster;
  LeaseGate& gate;
  SessionId session;
  std::int64_t retention_ns = 0;  // of what is deleted where no directory says otherwise
  bool may_keep = true;           // false: room is short where the metadata lies, nothing is kept
};

struct InodeView {
  InodeId id;
  InodeRecord record;
};

}  // namespace cairn::meta::ops
