// Exclusive leases and opens as rows of a Txn: the journaled part of what sessions hold. The lease table in
// memory (meta/leases.h) holds the same exclusive leases, and the shared ones, which are not journaled.
#pragma once

#include <optional>

#include "meta/records.h"
#include "meta/txn.h"

namespace cairn::meta {

Result<std::optional<ExclusiveRecord>> find_exclusive(Txn& txn, InodeId inode);
// Grants `inode` to `session` exclusively, or returns the generation it holds. No other session may hold it
// (kInternal).
Result<LeaseGeneration> take_exclusive(Txn& txn, SessionId session, InodeId inode);
// kLeaseLost unless `session` holds `inode` exclusively under `generation` (0: any).
Result<> check_exclusive(Txn& txn, SessionId session, InodeId inode, LeaseGeneration generation);
Result<> drop_exclusive(Txn& txn, InodeId inode);  // whoever holds it; nothing if nobody

Result<> add_open(Txn& txn, SessionId session, InodeId inode);
// At most as many as there are.
Result<> remove_opens(Txn& txn, SessionId session, InodeId inode, std::uint64_t count);
Result<bool> is_open(Txn& txn, InodeId inode);  // by any session
struct Opens {
  std::uint64_t here = 0;  // of one session
  std::uint64_t all = 0;
};
Result<Opens> count_opens(Txn& txn, SessionId session, InodeId inode);

}  // namespace cairn::meta
