// LeaseTable: who holds which inode, in memory. Exclusive leases are also rows (meta/lease_rows.h) and are
// loaded from them at start; shared ones live only here, and are named again by their holders after a
// restart. Executor thread only.
#pragma once

#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "meta/ops/operations.h"
#include "store/base/ids.h"

namespace cairn::meta {

using LeaseKind = ops::Keep;  // none, shared, exclusive

struct Grant {
  InodeId inode;
  LeaseKind kind = LeaseKind::kNone;
  LeaseGeneration generation;
};

struct LeaseHolder {
  SessionId session;
  LeaseKind kind = LeaseKind::kNone;
  LeaseGeneration generation;
};

class LeaseTable {
 public:
  std::span<const LeaseHolder> holders(InodeId inode) const;
  const LeaseHolder* find(InodeId inode, SessionId session) const;
  // Adds or replaces what `session` holds. CHECKs that an exclusive lease stands alone.
  void set(InodeId inode, SessionId session, LeaseKind kind, LeaseGeneration generation);
  // Lowers what `session` holds to at most `keep`. True if that changed something.
  bool lower(InodeId inode, SessionId session, LeaseKind keep);
  std::size_t count(SessionId session) const;
  std::vector<InodeId> held_by(SessionId session) const;
  std::size_t inodes() const { return inodes_.size(); }

 private:
  std::unordered_map<InodeId, std::vector<LeaseHolder>> inodes_;
  std::unordered_map<SessionId, std::unordered_set<InodeId>> sessions_;
};

}  // namespace cairn::meta
