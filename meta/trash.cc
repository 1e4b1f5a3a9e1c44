#include "meta/trash.h"

#include "meta/keys.h"
#include "store/base/log.h"

namespace cairn::meta {

Result<std::int64_t> retention_in(Txn& txn, InodeId directory, std::int64_t by_default) {
  for (InodeId at = directory; at.valid();) {
    TRY(auto record, load_directory(txn, at));
    if (record.retention_ns != DirectoryRecord::kInherited) return record.retention_ns;
    at = record.parent;
  }
  return by_default;
}

void put_trash(Txn& txn, InodeId inode, const TrashRecord& record, std::int64_t expires) {
  txn.put(keys::trash(expires, inode), record.encode());
  txn.put(keys::trash_name(record.parent, record.name, record.deleted, inode),
          CountRecord{static_cast<std::uint64_t>(expires)}.encode());
}

void erase_trash(Txn& txn, const TrashEntry& entry) {
  const TrashId& id = entry.id;
  txn.erase(keys::trash(entry.expires, id.inode));
  txn.erase(keys::trash_name(id.parent, id.name, id.deleted, id.inode));
}

Result<TrashEntry> load_trash(Txn& txn, const TrashId& id) {
  TRY(auto by_name, txn.get(keys::trash_name(id.parent, id.name, id.deleted, id.inode)));
  if (!by_name)
    return fail(Code::kNotFound, log_quote(id.name) + ", deleted in directory " + to_string(id.parent) +
                                     ", is not in the trash any more");
  TRY(const auto expires, CountRecord::decode(*by_name));
  TrashEntry entry{id, static_cast<std::int64_t>(expires.count), {}};
  TRY(auto bytes, txn.get(keys::trash(entry.expires, id.inode)));
  if (!bytes) return fail(Code::kCorrupt, "trash of inode " + to_string(id.inode) + " has no record");
  TRY(entry.record, TrashRecord::decode(*bytes));
  return entry;
}

Result<bool> has_trash(Txn& txn, InodeId directory) {
  bool found = false;
  TRYV(txn.scan(keys::trash_names(directory), {}, [&](std::string_view, std::string_view) {
    found = true;
    return false;
  }));
  return found;
}

}  // namespace cairn::meta
