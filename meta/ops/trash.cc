#include <algorithm>

#include "meta/keys.h"
#include "meta/layers.h"
#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

namespace {

constexpr std::uint32_t kTrashPageMax = 500;
constexpr std::size_t kExpireStep = 128;

std::int64_t later(std::int64_t now, std::int64_t by) {
  return by > INT64_MAX - now ? INT64_MAX : now + by;
}

// Who removed it, as the operator sees that client.
Result<std::string> client_name(Env& env) {
  TRY(auto bytes, env.txn.get(keys::session(env.session)));
  if (!bytes) return std::string();
  TRY(auto record, SessionRecord::decode(*bytes));
  return std::move(record.name);
}

Result<TrashRecord> record_of(Env& env, const InodeRecord& inode, const DropArgs& args) {
  TrashRecord record;
  record.parent = args.parent;
  record.deleted = env.txn.wall_ns();
  record.mode = inode.mode;
  record.uid = inode.uid;
  record.gid = inode.gid;
  record.by = args.uid;
  TRY(record.client, client_name(env));
  record.name = args.name;
  return record;
}

// Rows that say in which directories it has names: it has none.
Result<> forget_links(Env& env, InodeView& inode) {
  if (!(inode.record.flags & InodeRecord::kHadLinks)) return {};
  std::vector<std::string> rows;
  TRYV(env.txn.scan(keys::link_parents(inode.id), {}, [&](std::string_view key, std::string_view) {
    rows.emplace_back(key);
    return true;
  }));
  for (const std::string& row : rows) env.txn.erase(row);
  inode.record.flags &= static_cast<std::uint8_t>(~InodeRecord::kHadLinks);
  return {};
}

// The inode leaves the trash. Changes `inode`: store it.
Result<> take_out(Env& env, const TrashEntry& entry, InodeRecord& inode) {
  erase_trash(env.txn, entry);
  inode.flags &= static_cast<std::uint8_t>(~InodeRecord::kTrashed);
  TRYV(add_trash_counters(env.txn, -1, -static_cast<std::int64_t>(inode.bytes)));
  return add_counters(env.txn, 1, 0, 0);
}

// Deletes what the entry stands for, or leaves it to those who have it open. Bytes that are free for it.
Result<std::uint64_t> drop_entry(Env& env, const TrashEntry& entry) {
  TRY(auto inode, find_inode(env.txn, entry.id.inode));
  if (entry.record.is_directory() || !inode) {
    erase_trash(env.txn, entry);
    return 0;
  }
  TRYV(take_out(env, entry, *inode));
  TRY(const bool open, is_open(env.txn, entry.id.inode));
  if (open) {
    env.txn.put(keys::orphan(entry.id.inode), CountRecord{1}.encode());
    store_inode(env.txn, entry.id.inode, *inode);
    return 0;
  }
  env.gate.deleted(entry.id.inode);
  TRY(const std::uint64_t freed, unshared_bytes(env.txn, *inode));
  TRYV(delete_inode(env.txn, env.cluster, entry.id.inode, *inode));
  return freed;
}

}  // namespace

Result<bool> keep(Env& env, InodeView& inode, const DropArgs& args) {
  InodeRecord& record = inode.record;
  if (!env.may_keep || !record.is_regular() || std::max(record.size, args.size) == 0) return false;
  TRY(const std::int64_t retention, retention_in(env.txn, args.parent, env.retention_ns));
  if (retention <= 0) return false;
  TRY(const TrashRecord kept, record_of(env, record, args));
  TRYV(forget_links(env, inode));
  put_trash(env.txn, inode.id, kept, later(kept.deleted, retention));
  record.flags |= InodeRecord::kTrashed;
  store_inode(env.txn, inode.id, record);
  TRYV(add_counters(env.txn, -1, 0, 0));
  TRYV(add_trash_counters(env.txn, 1, static_cast<std::int64_t>(record.bytes)));
  return true;
}

Result<> keep_directory(Env& env, const InodeView& inode, const DropArgs& args) {
  TRY(const bool needed, has_trash(env.txn, inode.id));
  if (!needed) return {};
  TRY(const std::int64_t retention, retention_in(env.txn, inode.id, env.retention_ns));
  if (retention <= 0) return {};
  TRY(const TrashRecord kept, record_of(env, inode.record, args));
  put_trash(env.txn, inode.id, kept, later(kept.deleted, retention));
  return {};
}

Result<> set_retention(Env& env, InodeId directory, std::int64_t nanoseconds) {
  TRYV(load_directory_inode(env.txn, directory));
  TRY(auto record, load_directory(env.txn, directory));
  record.retention_ns = std::max(nanoseconds, DirectoryRecord::kInherited);
  store_settings(env.txn, directory, record);
  return {};
}

Result<Retention> get_retention(Env& env, InodeId directory) {
  TRYV(load_directory_inode(env.txn, directory));
  TRY(auto record, load_directory(env.txn, directory));
  TRY(const std::int64_t in_force, retention_in(env.txn, directory, env.retention_ns));
  return Retention{record.retention_ns, in_force};
}

namespace {

std::size_t page_limit(std::uint32_t limit) {
  return std::clamp<std::uint32_t>(limit, 1, kTrashPageMax);
}

// At most `limit` keys after `after`; `next` is the last one if there are more.
Result<std::vector<std::string>> keys_after(Txn& txn, const std::string& prefix, const ListTrashArgs& args,
                                            ListTrashResult& result) {
  std::vector<std::string> found;
  if (!args.after.empty() && !args.after.starts_with(prefix))
    return fail(Code::kInvalidArgument, "a page of the trash begins after one of its own rows");
  const std::string from = args.after.empty() ? std::string() : args.after + std::string(1, '\0');
  result.end = true;
  TRYV(txn.scan(prefix, from, [&](std::string_view key, std::string_view) {
    result.end = found.size() < page_limit(args.limit);
    if (result.end) found.emplace_back(key);
    return result.end;
  }));
  if (!found.empty()) result.next = found.back();
  return found;
}

Result<TrashEntry> entry_at(Txn& txn, std::string_view key) {
  TRY(auto bytes, txn.get(key));
  if (!bytes) return fail(Code::kCorrupt, "a row of the trash went while it was read");
  TRY(auto record, TrashRecord::decode(*bytes));
  TrashEntry entry;
  entry.expires = static_cast<std::int64_t>(keys::part(key, 0));
  entry.id = {InodeId(keys::part(key, 1)), record.parent, record.name, record.deleted};
  entry.record = std::move(record);
  return entry;
}

}  // namespace

Result<ListTrashResult> list_trash(Env& env, const ListTrashArgs& args) {
  ListTrashResult result;
  const bool all = !args.parent.valid();
  const std::string prefix = all                 ? keys::prefix(KeyPrefix::kTrash)
                             : args.name.empty() ? keys::trash_names(args.parent)
                                                 : keys::trash_names(args.parent, args.name);
  TRY(const auto found, keys_after(env.txn, prefix, args, result));
  for (const std::string& key : found) {
    ListTrashResult::Item item;
    if (all) {
      TRY(item.entry, entry_at(env.txn, key));
    } else {
      TrashId id;
      id.parent = args.parent;
      const std::string_view tail = std::string_view(key).substr(key.size() - 16);
      id.name = key.substr(1 + 8, key.size() - (1 + 8) - 1 - 16);
      id.deleted = static_cast<std::int64_t>(ByteReader(tail).be64());
      id.inode = InodeId(ByteReader(tail.substr(8)).be64());
      TRY(item.entry, load_trash(env.txn, id));
    }
    if (!item.entry.record.is_directory()) {
      TRY(item.inode, find_inode(env.txn, item.entry.id.inode));
    }
    result.items.push_back(std::move(item));
  }
  return result;
}

Result<LinkResult> undelete(Env& env, const UndeleteArgs& args) {
  TRYV(check_name(args.name));
  TRY(auto parent, load_directory_inode(env.txn, args.parent));
  TRY(auto dentry, find_dentry(env.txn, args.parent, args.name));
  if (dentry)
    return fail(Code::kExists, log_quote(args.name) + " exists in directory " + to_string(args.parent));
  TRY(const TrashEntry entry, load_trash(env.txn, args.id));
  if (entry.record.is_directory())
    return fail(Code::kIsDirectory, log_quote(args.id.name) + " was a directory: restore what was below it");
  env.gate.changes(args.parent);
  env.gate.changes(args.id.inode);
  TRYV(env.gate.settle());

  TRY(auto record, load_inode(env.txn, args.id.inode));
  TRYV(take_out(env, entry, record));
  TRYV(add_dentry(env.txn, args.parent, args.name, args.id.inode, record.mode));
  TRYV(add_usage(env.txn, args.parent, static_cast<std::int64_t>(record.bytes), 1, Limits::kEnforced));
  record.nlink = 1;
  record.parent = args.parent;
  touch(env.txn, record);
  store_inode(env.txn, args.id.inode, record);
  touch_entries(env.txn, parent);
  store_inode(env.txn, args.parent, parent);
  return LinkResult{{args.id.inode, std::move(record)}, std::move(parent)};
}

Result<std::uint32_t> empty_trash(Env& env, const std::vector<TrashId>& ids) {
  std::uint32_t removed = 0;
  for (const TrashId& id : ids) {
    auto entry = load_trash(env.txn, id);
    if (!entry && entry.error().code() == Code::kNotFound) continue;
    if (!entry) return fail(std::move(entry.error()));
    TRYV(drop_entry(env, *entry));
    ++removed;
  }
  return removed;
}

Result<ExpireResult> expire_trash(Env& env, const ExpireArgs& args) {
  std::vector<std::string> rows;
  TRYV(env.txn.scan(keys::prefix(KeyPrefix::kTrash), {}, [&](std::string_view key, std::string_view) {
    const bool due = static_cast<std::int64_t>(keys::part(key, 0)) <= args.until;
    if ((!due && args.bytes == 0) || rows.size() == kExpireStep) return false;
    rows.emplace_back(key);
    return true;
  }));
  ExpireResult result;
  result.more = rows.size() == kExpireStep;
  for (const std::string& row : rows) {
    TRY(const TrashEntry entry, entry_at(env.txn, row));
    if (entry.expires > args.until && result.bytes >= args.bytes) {
      result.more = false;
      break;
    }
    TRY(const std::uint64_t bytes, drop_entry(env, entry));
    result.bytes += bytes;
    ++result.files;
  }
  return result;
}

}  // namespace cairn::meta::ops
