#include "meta/inode_store.h"

#include <algorithm>
#include <map>

#include "meta/keys.h"
#include "meta/layers.h"
#include "meta/lease_rows.h"
#include "meta/quota.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {
constexpr int kDepthMax = 100'000;  // a longer way up is a cycle: corrupt
std::string name_of(InodeId id) {
  return "inode " + to_string(id);
}
}  // namespace

Result<> check_name(std::string_view name) {
  if (name.size() > kNameMax) return fail(Code::kNameTooLong, "a name may have at most 255 bytes");
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
      name.find('\0') != name.npos) {
    return fail(Code::kInvalidArgument, "not a name for a directory entry: " + log_quote(name));
  }
  return {};
}

Result<std::optional<InodeRecord>> find_inode(Txn& txn, InodeId id) {
  TRY(auto bytes, txn.get(keys::inode(id)));
  if (!bytes) return std::nullopt;
  auto inode = InodeRecord::decode(*bytes);
  if (!inode) return fail(inode.error().with(name_of(id)));
  return std::move(*inode);
}

Result<InodeRecord> load_inode(Txn& txn, InodeId id) {
  TRY(auto inode, find_inode(txn, id));
  if (!inode) return fail(Code::kNotFound, "no " + name_of(id));
  return std::move(*inode);
}

Result<InodeRecord> load_directory_inode(Txn& txn, InodeId id) {
  TRY(auto inode, load_inode(txn, id));
  if (!inode.is_directory()) return fail(Code::kNotDirectory, name_of(id) + " is not a directory");
  if (inode.nlink == 0) return fail(Code::kNotFound, "directory " + name_of(id) + " was removed");
  return inode;
}

void store_inode(Txn& txn, InodeId id, const InodeRecord& inode) {
  txn.put(keys::inode(id), inode.encode());
}

void touch(const Txn& txn, InodeRecord& inode) {
  inode.ctime = std::max(inode.ctime, txn.wall_ns());  // hosts' clocks differ, and it only goes forward
  ++inode.change;
}

void touch_entries(const Txn& txn, InodeRecord& directory) {
  directory.mtime = txn.wall_ns();
  touch(txn, directory);
}

Result<DirectoryRecord> load_directory(Txn& txn, InodeId id) {
  TRY(auto bytes, txn.get(keys::directory(id)));
  if (!bytes) return fail(Code::kCorrupt, "directory " + name_of(id) + " has no directory record");
  auto record = DirectoryRecord::decode(*bytes);
  if (!record) return fail(record.error().with(name_of(id)));
  return *record;
}

void store_directory(Txn& txn, InodeId id, const DirectoryRecord& record) {
  txn.put(keys::directory(id), record.encode());
}

void store_settings(Txn& txn, InodeId id, const DirectoryRecord& record) {
  store_directory(txn, id, record);
  if (record.has_settings()) {
    txn.put(keys::directory_setting(id), CountRecord{1}.encode());
  } else {
    txn.erase(keys::directory_setting(id));
  }
}

namespace {

// Adds to the totals of one directory.
Result<> grow_totals(InodeId id, DirectoryRecord& record, std::int64_t bytes, std::int64_t inodes,
                     Limits limits) {
  record.bytes += bytes;
  record.inodes += inodes;
  if (limits == Limits::kIgnored) return {};
  const auto over = [](std::int64_t more, std::int64_t total, std::uint64_t most) {
    return more > 0 && most != 0 && total > 0 && static_cast<std::uint64_t>(total) > most;
  };
  if (over(bytes, record.bytes, record.bytes_max)) {
    return fail(Code::kQuotaExceeded, "directory " + to_string(id) + " may have " +
                                          std::to_string(record.bytes_max) + " bytes below it");
  }
  if (over(inodes, record.inodes, record.inodes_max)) {
    return fail(Code::kQuotaExceeded, "directory " + to_string(id) + " may have " +
                                          std::to_string(record.inodes_max) +
                                          " files and directories below it");
  }
  return {};
}

// Calls visit(id, record) for `directory` and all above it; it returns a Result<>.
template <class Visit>
Result<> for_each_above(Txn& txn, InodeId directory, Visit visit) {
  InodeId at = directory;
  for (int depth = 0; at.valid(); ++depth) {
    if (depth == kDepthMax)
      return fail(Code::kCorrupt, "directories above " + name_of(directory) + " form a cycle");
    TRY(auto record, load_directory(txn, at));
    const InodeId above = record.parent;
    TRYV(visit(at, record));
    at = above;
  }
  return {};
}

}  // namespace

Result<> add_usage(Txn& txn, InodeId directory, std::int64_t bytes, std::int64_t inodes, Limits limits) {
  if (bytes == 0 && inodes == 0) return {};
  return for_each_above(txn, directory, [&](InodeId id, DirectoryRecord& record) -> Result<> {
    TRYV(grow_totals(id, record, bytes, inodes, limits));
    store_directory(txn, id, record);
    return {};
  });
}

Result<> UsageChange::apply(Txn& txn, Limits limits) const {
  std::map<InodeId, Part> sums;
  for (const Part& part : parts_) {
    TRYV(for_each_above(txn, part.directory, [&](InodeId id, DirectoryRecord&) -> Result<> {
      Part& sum = sums[id];
      sum.bytes += part.bytes;
      sum.inodes += part.inodes;
      return {};
    }));
  }
  for (const auto& [id, sum] : sums) {
    if (sum.bytes == 0 && sum.inodes == 0) continue;
    TRY(auto record, load_directory(txn, id));
    TRYV(grow_totals(id, record, sum.bytes, sum.inodes, limits));
    store_directory(txn, id, record);
  }
  return {};
}

Result<std::optional<DentryRecord>> find_dentry(Txn& txn, InodeId parent, std::string_view name) {
  TRY(auto bytes, txn.get(keys::dentry(parent, name)));
  if (!bytes) return std::nullopt;
  auto dentry = DentryRecord::decode(*bytes);
  if (!dentry) return fail(dentry.error().with(name_of(parent)));
  return *dentry;
}

void replace_dentry(Txn& txn, InodeId parent, std::string_view name, DentryRecord dentry) {
  txn.put(keys::dentry(parent, name), dentry.encode());
  txn.put(keys::cookie(parent, dentry.cookie),
          CookieRecord{dentry.inode, dentry.type, std::string(name)}.encode());
}

Result<> add_dentry(Txn& txn, InodeId parent, std::string_view name, InodeId inode, std::uint32_t type) {
  TRY(auto directory, load_directory(txn, parent));
  replace_dentry(txn, parent, name, {inode, type & S_IFMT, directory.next_cookie++});
  store_directory(txn, parent, directory);
  return {};
}

void erase_dentry(Txn& txn, InodeId parent, std::string_view name, const DentryRecord& dentry) {
  txn.erase(keys::dentry(parent, name));
  txn.erase(keys::cookie(parent, dentry.cookie));
}

Result<bool> directory_is_empty(Txn& txn, InodeId directory) {
  bool empty = true;
  TRYV(txn.scan(keys::dentries(directory), {}, [&](std::string_view, std::string_view) {
    empty = false;
    return false;
  }));
  return empty;
}

Result<Counters> load_counters(Txn& txn) {
  TRY(auto bytes, txn.get(keys::system("counters")));
  if (!bytes) return Counters{};
  return Counters::decode(*bytes);
}

Result<> add_counters(Txn& txn, std::int64_t inodes, std::int64_t directories, std::int64_t objects) {
  TRY(auto counters, load_counters(txn));
  counters.inodes += static_cast<std::uint64_t>(inodes);
  counters.directories += static_cast<std::uint64_t>(directories);
  counters.objects += static_cast<std::uint64_t>(objects);
  txn.put(keys::system("counters"), counters.encode());
  return {};
}

Result<> add_trash_counters(Txn& txn, std::int64_t files, std::int64_t bytes) {
  if (files == 0 && bytes == 0) return {};
  TRY(auto counters, load_counters(txn));
  counters.trash_files += static_cast<std::uint64_t>(files);
  counters.trash_bytes += static_cast<std::uint64_t>(bytes);
  txn.put(keys::system("counters"), counters.encode());
  return {};
}

namespace {

Result<std::optional<std::uint64_t>> names_in(Txn& txn, InodeId id, InodeId parent) {
  TRY(auto bytes, txn.get(keys::link_parent(id, parent)));
  if (!bytes) return std::nullopt;
  TRY(auto record, CountRecord::decode(*bytes));
  return record.count;
}
void set_names_in(Txn& txn, InodeId id, InodeId parent, std::uint64_t count) {
  if (count == 0) {
    txn.erase(keys::link_parent(id, parent));
  } else {
    txn.put(keys::link_parent(id, parent), CountRecord{count}.encode());
  }
}
Result<> rehome(Txn& txn, InodeId id, InodeRecord& inode, InodeId to, UsageChange& usage) {
  if (inode.parent == to) return {};
  TRY(const std::int64_t bytes, charged_bytes(txn, id, inode));
  usage.add(inode.parent, -bytes, -1);
  usage.add(to, bytes, 1);
  inode.parent = to;
  return {};
}
// True if the name was the last one in the directory that accounts for the inode.
Result<bool> remove_one_name(Txn& txn, InodeId id, const InodeRecord& inode, InodeId parent) {
  TRY(auto count, names_in(txn, id, parent));
  if (!count || *count == 0)
    return fail(Code::kCorrupt, name_of(id) + " has no record of its name in a directory");
  set_names_in(txn, id, parent, *count - 1);
  return *count == 1 && inode.parent == parent;
}

}  // namespace

Result<> name_added(Txn& txn, InodeId id, InodeRecord& inode, InodeId parent) {
  if (!(inode.flags & InodeRecord::kHadLinks)) {
    set_names_in(txn, id, inode.parent, 1);  // its first name had no row yet
    inode.flags |= InodeRecord::kHadLinks;
  }
  TRY(auto count, names_in(txn, id, parent));
  set_names_in(txn, id, parent, count.value_or(0) + 1);
  return {};
}

Result<> name_removed(Txn& txn, InodeId id, InodeRecord& inode, InodeId parent) {
  TRY(const bool homeless, remove_one_name(txn, id, inode, parent));
  if (!homeless) return {};
  InodeId other;
  TRYV(txn.scan(keys::link_parents(id), {}, [&](std::string_view key, std::string_view) {
    other = InodeId(keys::part(key, 1));
    return false;
  }));
  if (!other.valid())
    return fail(Code::kCorrupt, name_of(id) + " has links but no record of their directories");
  UsageChange usage;
  TRYV(rehome(txn, id, inode, other, usage));
  return usage.apply(txn, Limits::kIgnored);
}

Result<> name_moved(Txn& txn, InodeId id, InodeRecord& inode, InodeId from, InodeId to, UsageChange& usage) {
  if (from == to) return {};
  if (!(inode.flags & InodeRecord::kHadLinks)) return rehome(txn, id, inode, to, usage);
  TRY(auto there, names_in(txn, id, to));
  set_names_in(txn, id, to, there.value_or(0) + 1);
  TRY(const bool homeless, remove_one_name(txn, id, inode, from));
  if (!homeless) return {};
  // Not to any other directory with a name: that one's limit has nothing to do with the rename.
  return rehome(txn, id, inode, to, usage);
}

LayerRecord fresh_layer(Txn& txn, const PoolInfo& pool) {
  LayerRecord layer;
  layer.data = DataId(txn.next_id());
  layer.pool = pool.id;
  layer.chunk_size = pool.chunk_size;
  return layer;
}

std::uint64_t chunks_to_purge(const InodeRecord& inode) {
  std::uint64_t known = inode.chunks_of(inode.size);
  if (inode.layers.size() > 1) {
    const Ranges own = own_chunks(inode, {0, known});
    known = own.empty() ? 0 : own.back().to;
  }
  return std::max({inode.bound, known, inode.chunks_of(inode.trim.to)});
}

Result<> release_data(Txn& txn, Cluster& cluster, const InodeRecord& inode) {
  const std::uint64_t chunks = chunks_to_purge(inode);
  for (const LayerRecord& layer : inode.layers) {
    if (layer.frozen) {
      TRYV(release_layer(txn, cluster, layer));
    } else if (chunks > 0) {
      cluster.queue_purge(txn, layer.data, layer.pool,
                          static_cast<std::uint32_t>(std::min<std::uint64_t>(chunks, UINT32_MAX)));
    }
  }
  return {};
}

Result<> set_bytes(Txn& txn, InodeRecord& inode, std::uint64_t bytes) {
  const auto delta = static_cast<std::int64_t>(bytes - inode.bytes);
  inode.bytes = bytes;
  if (inode.flags & InodeRecord::kTrashed) TRYV(add_trash_counters(txn, 0, delta));
  return add_usage(txn, inode.parent, delta, 0);
}

Result<> delete_inode(Txn& txn, Cluster& cluster, InodeId id, const InodeRecord& inode) {
  TRYV(release_data(txn, cluster, inode));
  std::vector<std::string> rows{keys::inode(id), keys::orphan(id)};
  if (inode.is_symlink()) rows.push_back(keys::symlink(id));
  if (inode.is_directory()) {
    rows.push_back(keys::directory(id));
    rows.push_back(keys::directory_setting(id));
  }
  if (inode.flags & InodeRecord::kHasReserved) rows.push_back(keys::reserved(id));
  const auto collect = [&](std::string_view key, std::string_view) {
    rows.emplace_back(key);
    return true;
  };
  if (inode.flags & InodeRecord::kHasXattrs) {
    TRYV(txn.scan(keys::xattrs(id), {}, collect));
  }
  if (inode.flags & InodeRecord::kHadLinks) {
    TRYV(txn.scan(keys::link_parents(id), {}, collect));
  }
  for (const std::string& row : rows) txn.erase(row);
  TRYV(drop_exclusive(txn, id));
  return add_counters(txn, -1, inode.is_directory() ? -1 : 0, 0);
}

}  // namespace cairn::meta
