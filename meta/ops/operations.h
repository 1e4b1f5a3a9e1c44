// The namespace operations, one .cc a group of arguments below. Each is one transaction: on an error nothing
// is written (the executor drops the writes). POSIX semantics; permissions are the kernel's business
// (default_permissions), inheritance of set-group-id directories is ours.
#pragma once

#include <string>
#include <vector>

#include "meta/ops/env.h"
#include "meta/quota.h"
#include "meta/trash.h"

namespace cairn::meta::ops {

// --- lookup.cc ---
struct LookupArgs {
  InodeId parent;
  std::string name;
};
struct LookupResult {
  std::optional<InodeView> inode;
};  // empty: no such name. ".." of a directory is its parent
Result<LookupResult> lookup(Env& env, const LookupArgs& args);

// --- getattr.cc ---
Result<InodeView> getattr(Env& env, InodeId inode);

// --- setattr.cc ---
struct SetAttrArgs {
  enum : std::uint32_t {
    kMode = 1,
    kUid = 2,
    kGid = 4,
    kSize = 8,
    kAtime = 16,
    kMtime = 32,
    kAtimeNow = 64,
    kMtimeNow = 128,
    kCtime = 256
  };
  InodeId inode;
  std::uint32_t valid = 0;
  std::uint32_t mode = 0, uid = 0, gid = 0;
  std::uint64_t size = 0;
  std::int64_t atime = 0, mtime = 0, ctime = 0;
  LeaseGeneration generation;  // if given with a size: must be held. kLeaseLost otherwise
  bool shrinks = false;        // the size was larger for its holder, who may have stored bytes behind it
};
// A size of 0 gives the file a fresh data id. Shrinking to more, also in the eyes of the holder alone, sets
// `trim`; growing adds holes. kLeaseLost also: growth past a trim that the exclusive holder has not reported
// done. kInvalidArgument: the new end lies within a chunk of a frozen layer (the holder writes such a chunk
// anew, and reports it, before he shrinks).
Result<InodeView> setattr(Env& env, const SetAttrArgs& args);
// Shared with open: the file becomes empty.
Result<> truncate_to_zero(Env& env, InodeView& inode);

// --- make.cc ---
struct MakeArgs {
  InodeId parent;
  std::string name;
  std::uint32_t mode = 0, uid = 0, gid = 0;
  std::uint64_t rdev = 0;
  std::string target;           // symlink
  bool exclusive = false;       // an existing name is kExists; otherwise a regular file is returned as it is
  bool open = false;            // regular file: counted as open, granted exclusively
  std::uint32_t full_mode = 0;  // permission bits before the umask (0: as `mode`), for a default access list
};
struct MakeResult {
  InodeView inode;
  InodeRecord parent;
  bool created = false;
  std::optional<LeaseGeneration> exclusive;
};
Result<MakeResult> make(Env& env, const MakeArgs& args);

// --- open.cc ---
struct OpenArgs {
  InodeId inode;
  bool write = false;
  bool truncate = false;
};
struct OpenResult {
  InodeView inode;
  std::optional<LeaseGeneration> exclusive;
};
Result<OpenResult> open(Env& env, const OpenArgs& args);
// Grants exclusively and raises the bound to what a new holder may write at once.
Result<LeaseGeneration> grant_exclusive(Env& env, InodeView& inode);

// --- report.cc ---
enum class Keep : std::uint8_t { kNone = 0, kShared = 1, kExclusive = 2 };
struct ReportItem {
  InodeId inode;
  LeaseGeneration generation;
  bool has_size = false;
  std::uint64_t size = 0;
  Ranges written;
  std::uint64_t bytes = 0;
  bool trim_done = false;
  std::int64_t atime = 0, mtime = 0;  // 0: unchanged
  std::optional<std::uint32_t> mode;  // permission bits
  std::uint64_t closed = 0;
  Keep keep = Keep::kExclusive;
  Ranges punched;                          // not in `written`; the holder emptied these chunks
  std::optional<std::uint64_t> bytes_max;  // of its allowance it needs only so much
  std::int64_t ctime = 0;                  // of the holder's last change; 0: now
  bool if_last = false;  // only the opens end, and only if the inode goes with them: else kExists
};
// One code an item; an item with a code other than kOk changed nothing. kOverloaded: one journal entry can't
// hold it with those before it, report it again. `durable`: the data was synced before.
Result<std::vector<Code>> report(Env& env, const std::vector<ReportItem>& items, bool durable);
// `count` opens of the session ended; an unlinked inode goes with the last of all.
Result<> close_opens(Env& env, InodeId inode, std::uint64_t count);

// --- extend_bound.cc ---
struct ExtendBoundArgs {
  InodeId inode;
  LeaseGeneration generation;
  std::uint64_t bound = 0;
  std::uint64_t bytes = 0;   // allocated bytes that the file is to have
  std::uint64_t needed = 0;  // at most `bound`: given though there is less space, as long as a chunk fits
};
struct ExtendBoundResult {
  std::uint64_t bound = 0;
  Allowance allowed;
};
// kLeaseLost, kNoSpace, kRange, kQuotaExceeded.
Result<ExtendBoundResult> extend_bound(Env& env, const ExtendBoundArgs& args);

// --- share_chunks.cc ---
struct ShareArgs {
  InodeId source;
  LeaseGeneration source_generation;  // needed while the source holds some of the chunks in its own layer
  InodeId target;
  LeaseGeneration generation;  // of the target
  std::uint64_t from = 0;      // chunks
  std::uint64_t to = 0;
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;  // that the source is believed to have there; 0: any
};
struct ShareResult {
  InodeView source, target;  // the same, if the inodes are
};
// Chunks [from, from + count) of the source become chunks [to, to + count) of the target too, at once: its
// size follows, holes stay holes. What either holder wrote was synced and reported before. kLeaseLost: one of
// the leases is not held, or something is to be trimmed first. kRange: the files would have too many layers
// or ranges, copy the bytes. kInvalidArgument: not regular files, of different chunk sizes, past the source's
// end, other `bytes` than the source has there, or bytes of the target behind it would be lost.
// kQuotaExceeded: shared bytes count in every file.
Result<ShareResult> share_chunks(Env& env, const ShareArgs& args);

// --- remove.cc ---
struct RemoveArgs {
  InodeId parent;
  std::string name;
  bool directory = false;
  std::uint32_t uid = 0;   // who removes it
  std::uint64_t size = 0;  // of the file, if that session knows of more than it reported
};
struct DirsResult {
  InodeRecord parent;
  InodeRecord new_parent;
  bool kept = false;  // in the trash, what lost its last name
};
Result<DirsResult> remove(Env& env, const RemoveArgs& args);
// Takes the name (whose dentry the caller removes or replaces) from the inode; deletes it or makes it an
// orphan after its last. `replaced`: a reader on any host may have looked the name up and be about to open
// what it found, which must not fail (rename is atomic): a regular file lingers as an orphan also without an
// open.
enum class NameEnds { kRemoved, kReplaced };
struct DropArgs {
  InodeId parent;
  std::string_view name;
  NameEnds how = NameEnds::kRemoved;
  std::uint32_t uid = 0;
  std::uint64_t size = 0;
};
Result<bool> drop_name(Env& env, InodeView& inode, const DropArgs& args);  // true: it is in the trash

// --- rename.cc ---
struct RenameArgs {
  // kWhiteout: a character device 0:0, of `uid` and `gid`, takes the old name.
  enum : std::uint32_t { kNoReplace = 1, kExchange = 2, kWhiteout = 4 };
  InodeId parent;
  std::string name;
  InodeId new_parent;
  std::string new_name;
  std::uint32_t flags = 0;
  std::uint32_t uid = 0, gid = 0;  // who renames
  std::uint64_t size = 0;          // of what is replaced, as in RemoveArgs
};
Result<DirsResult> rename(Env& env, const RenameArgs& args);

// --- link.cc ---
struct LinkArgs {
  InodeId inode;
  InodeId parent;
  std::string name;
};
struct LinkResult {
  InodeView inode;
  InodeRecord parent;
};
Result<LinkResult> link(Env& env, const LinkArgs& args);
Result<std::string> readlink(Env& env, InodeId inode);  // kInvalidArgument: not a symlink

// --- readdir.cc ---
struct ReadDirArgs {
  InodeId inode;
  std::uint64_t cookie = 0;
  std::uint32_t limit = 0;
  bool plus = false;
};
struct ReadDirEntry {
  std::string name;
  InodeId inode;
  std::uint32_t type = 0;
  std::uint64_t cookie = 0;
  std::optional<InodeRecord> record;  // plus, unless another session holds it exclusively
};
struct ReadDirResult {
  std::vector<ReadDirEntry> entries;
  bool end = false;
  InodeId parent;
};
Result<ReadDirResult> readdir(Env& env, const ReadDirArgs& args);

// --- xattr.cc ---
constexpr std::size_t kXattrValueMax = 64 * 1024;
constexpr std::size_t kXattrTotalMax = 128 * 1024;  // names and values of one inode
struct SetXattrArgs {
  // kClearSetgid: with an access control list, by somebody who is not of the file's group.
  enum : std::uint32_t { kCreate = 1, kReplace = 2, kClearSetgid = 4 };
  InodeId inode;
  std::string name;
  std::string value;
  std::uint32_t flags = 0;
};
Result<std::string> getxattr(Env& env, InodeId inode, const std::string& name);  // kNoAttribute
// kExists, kNoAttribute, kRange, kNoSpace; and of access control lists, which also set the mode: ops/acl.h.
Result<> setxattr(Env& env, const SetXattrArgs& args);
Result<std::vector<std::string>> listxattr(Env& env, InodeId inode);
// kNoAttribute, but not for access control lists.
Result<> removexattr(Env& env, InodeId inode, const std::string& name);

// --- statfs.cc ---
struct StatFs {
  std::uint64_t total = 0, available = 0, files = 0;
  std::uint64_t files_max = 0;  // 0: none
};
// kStarting: just started, and not all chunkservers have told yet what room they have.
// With the quotas above `inode`, if it is given: the least that they leave.
Result<StatFs> statfs(Env& env, InodeId inode);

// --- quota.cc ---
struct SetQuotaArgs {
  enum : std::uint32_t { kBytes = 1, kInodes = 2 };
  InodeId inode;
  std::uint32_t valid = 0;
  std::uint64_t bytes = 0, inodes = 0;  // 0: no limit
};
// What is there may be more than the limit: then nothing may be added.
Result<> set_quota(Env& env, const SetQuotaArgs& args);
struct QuotaView {
  InodeId inode;
  DirectoryRecord record;
};
struct GetQuotasArgs {
  InodeId inode;  // none: of all directories with a quota
  InodeId after;
  std::uint32_t limit = 0;
};
struct GetQuotasResult {
  std::vector<QuotaView> items;
  bool end = false;
};
Result<GetQuotasResult> get_quotas(Env& env, const GetQuotasArgs& args);

// --- trash.cc: see meta/trash.h ---
// For drop_name: puts the inode, whose last name goes, into the trash. False: it is not kept (empty, no
// regular file, no retention).
Result<bool> keep(Env& env, InodeView& inode, const DropArgs& args);
// A removed directory with trash below it; before its DirectoryRecord goes.
Result<> keep_directory(Env& env, const InodeView& inode, const DropArgs& args);
Result<> set_retention(Env& env, InodeId directory, std::int64_t nanoseconds);  // -1: as above it
struct Retention {
  std::int64_t own = -1;
  std::int64_t in_force = 0;
};
Result<Retention> get_retention(Env& env, InodeId directory);
struct ListTrashArgs {
  InodeId parent;    // none: everything
  std::string name;  // with parent: of this name only, oldest first
  std::string after;
  std::uint32_t limit = 0;
};
struct ListTrashResult {
  struct Item {
    TrashEntry entry;
    std::optional<InodeRecord> inode;  // of files
  };
  std::vector<Item> items;
  std::string next;
  bool end = false;
};
Result<ListTrashResult> list_trash(Env& env, const ListTrashArgs& args);
struct UndeleteArgs {
  TrashId id;
  InodeId parent;
  std::string name;
};
// kNotFound, kExists, kQuotaExceeded.
Result<LinkResult> undelete(Env& env, const UndeleteArgs& args);
// How many of them were there.
Result<std::uint32_t> empty_trash(Env& env, const std::vector<TrashId>& ids);
struct ExpireArgs {
  std::int64_t until = 0;   // what expires by then goes
  std::uint64_t bytes = 0;  // and of the rest what expires first, until so much is gone
};
struct ExpireResult {
  std::uint32_t files = 0;
  std::uint64_t bytes = 0;
  bool more = false;  // there may be more of it
};
// One bounded step.
Result<ExpireResult> expire_trash(Env& env, const ExpireArgs& args);

}  // namespace cairn::meta::ops
