// Directory quotas: limits on the bytes and inodes that account to a directory's subtree, kept in its
// DirectoryRecord and checked where add_usage() walks up. Every limit above a place counts.
//
// Bytes are charged before they are stored. A file below a byte quota is charged what it has *and* what its
// exclusive holder may still store (its reservation, a row of its own), so that any number of writers on any
// hosts together stay within the limit, and a writer hears of it at write(), before its bytes are taken. A
// holder asks for more with ExtendBound, gets some ahead, and gives back with its reports what it does not
// need. What it was not asked about is charged all the same when it is reported, never refused: bytes written
// by those who held a file before its directory was limited, or moved below a limit.
//
// Files without names (unlinked, still open) account to no directory. Executor thread only.
#pragma once

#include <optional>

#include "meta/inode_store.h"

namespace cairn::meta {

struct Allowance {
  bool limited = false;
  std::uint64_t bytes_max = 0;  // if limited: allocated bytes that the file may have
};

// Bytes that may still be added below `directory` (none: there is no byte quota above it).
Result<std::optional<std::uint64_t>> room_in(Txn& txn, InodeId directory);
// What the inode accounts for: its bytes and its reservation.
Result<std::int64_t> charged_bytes(Txn& txn, InodeId id, const InodeRecord& inode);
// What the exclusive holder may write now.
Result<Allowance> allowance(Txn& txn, InodeId id, const InodeRecord& inode);
// The file is to have `bytes` allocated bytes: reserves them, and some ahead. Changes `inode`: store it.
// kQuotaExceeded.
Result<Allowance> extend_allowance(Txn& txn, InodeId id, InodeRecord& inode, std::uint64_t bytes);
// As set_bytes(), for a report: the reservation shrinks by what the file grew, and to `bytes_max` if given.
Result<> report_bytes(Txn& txn, InodeId id, InodeRecord& inode, std::uint64_t bytes,
                      std::optional<std::uint64_t> bytes_max);
// Forgets the reservation without giving its bytes back: the inode accounts to no directory any more.
// Changes `inode`: store it.
void forget_reserved(Txn& txn, InodeId id, InodeRecord& inode);
// As drop_exclusive(), and the reservation goes with the lease.
Result<> release_exclusive(Txn& txn, InodeId id);

}  // namespace cairn::meta
