// Trash: regular files whose last name went, kept as they are (inode, data, attributes) for their retention,
// or until their space is needed. Each is one row by the time at which it expires and one by the directory
// and name that it had; the inode says kTrashed, accounts to no directory and counts as trash in the
// counters.
//
// An inode in the trash behaves as an unlinked one to those who have it open. When it leaves the trash other
// than by undelete, it is deleted, or becomes an orphan if it is open.
//
// Entries name the directory by inode: a directory that moves takes along what was deleted in it. A removed
// directory leaves an entry of its own if it has some below it, so that their place can be made again.
// Executor thread only.
#pragma once

#include "meta/inode_store.h"

namespace cairn::meta {

// What names an entry.
struct TrashId {
  InodeId inode;
  InodeId parent;
  std::string name;
  std::int64_t deleted = 0;
};

struct TrashEntry {
  TrashId id;
  std::int64_t expires = 0;
  TrashRecord record;
};

// How long what is deleted in `directory` is kept: the setting of the nearest directory that has one.
Result<std::int64_t> retention_in(Txn& txn, InodeId directory, std::int64_t by_default);

void put_trash(Txn& txn, InodeId inode, const TrashRecord& record, std::int64_t expires);
void erase_trash(Txn& txn, const TrashEntry& entry);
Result<TrashEntry> load_trash(Txn& txn, const TrashId& id);  // kNotFound
// True if something that was deleted in `directory` is there.
Result<bool> has_trash(Txn& txn, InodeId directory);

}  // namespace cairn::meta
