// Inodes, directory entries, subtree usage and counters as rows of a Txn: the vocabulary in which meta/ops is
// written. Executor thread only.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "meta/cluster.h"
#include "meta/records.h"
#include "meta/txn.h"

namespace cairn::meta {

constexpr std::size_t kNameMax = 255;
constexpr std::uint32_t kLinksMax = 65000;
constexpr std::uint32_t kInitialBound = 1;  // chunks past the end that an exclusive grant allows at once

// kInvalidArgument: empty, "." or "..", or with '/' or NUL; kNameTooLong.
Result<> check_name(std::string_view name);

Result<std::optional<InodeRecord>> find_inode(Txn& txn, InodeId id);
Result<InodeRecord> load_inode(Txn& txn, InodeId id);  // kNotFound
Result<InodeRecord> load_directory_inode(Txn& txn,
                                         InodeId id);  // kNotFound (also when removed), kNotDirectory
void store_inode(Txn& txn, InodeId id, const InodeRecord& inode);
// Attributes changed now; `entries` (directories): mtime too.
void touch(const Txn& txn, InodeRecord& inode);
void touch_entries(const Txn& txn, InodeRecord& directory);

Result<DirectoryRecord> load_directory(Txn& txn, InodeId id);  // kCorrupt when missing
void store_directory(Txn& txn, InodeId id, const DirectoryRecord& record);
// As store_directory(), after a change of its settings: those that have some are listed in rows of their own.
void store_settings(Txn& txn, InodeId id, const DirectoryRecord& record);

// Whether a change of subtree totals must keep to the quotas of the directories concerned. What is taken away
// always may be; the same for what moves because a name was removed elsewhere.
enum class Limits { kEnforced, kIgnored };
// Adds to the subtree totals of `directory` and all above it. kQuotaExceeded names the directory.
Result<> add_usage(Txn& txn, InodeId directory, std::int64_t bytes, std::int64_t inodes,
                   Limits limits = Limits::kIgnored);

// Changes of several directories' totals, applied as one: what moves within a limited subtree does not count
// against its limit.
class UsageChange {
 public:
  void add(InodeId directory, std::int64_t bytes, std::int64_t inodes) {
    parts_.push_back({directory, bytes, inodes});
  }
  Result<> apply(Txn& txn, Limits limits) const;

 private:
  struct Part {
    InodeId directory;
    std::int64_t bytes = 0;
    std::int64_t inodes = 0;
  };
  std::vector<Part> parts_;
};

Result<std::optional<DentryRecord>> find_dentry(Txn& txn, InodeId parent, std::string_view name);
Result<> add_dentry(Txn& txn, InodeId parent, std::string_view name, InodeId inode, std::uint32_t type);
void erase_dentry(Txn& txn, InodeId parent, std::string_view name, const DentryRecord& dentry);
// The name now leads to another inode; its cookie stays.
void replace_dentry(Txn& txn, InodeId parent, std::string_view name, DentryRecord dentry);
Result<bool> directory_is_empty(Txn& txn, InodeId directory);

Result<Counters> load_counters(Txn& txn);
Result<> add_counters(Txn& txn, std::int64_t inodes, std::int64_t directories, std::int64_t objects);
Result<> add_trash_counters(Txn& txn, std::int64_t files, std::int64_t bytes);

// --- where a file with several names is accounted for ---
Result<> name_added(Txn& txn, InodeId id, InodeRecord& inode, InodeId parent);    // before nlink grows
Result<> name_removed(Txn& txn, InodeId id, InodeRecord& inode, InodeId parent);  // nlink > 0 after
Result<> name_moved(Txn& txn, InodeId id, InodeRecord& inode, InodeId from, InodeId to, UsageChange& usage);

// --- data ---
LayerRecord fresh_layer(Txn& txn, const PoolInfo& pool);
// Chunks that may exist of the inode's own data id.
std::uint64_t chunks_to_purge(const InodeRecord& inode);
// The inode lets go of all its data: purged, unless other inodes share it.
Result<> release_data(Txn& txn, Cluster& cluster, const InodeRecord& inode);
// Changes `bytes` of the inode and of the directories above it; what is reserved for its holder stays.
Result<> set_bytes(Txn& txn, InodeRecord& inode, std::uint64_t bytes);
// All rows of an inode without names and opens, and its data.
Result<> delete_inode(Txn& txn, Cluster& cluster, InodeId id, const InodeRecord& inode);

}  // namespace cairn::meta
