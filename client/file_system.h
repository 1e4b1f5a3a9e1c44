// Files by inode, as FUSE asks for them, and by path. Coroutines (`Task`) run on the client's io threads and
// never block; spawn() starts one from any thread and calls back with its result on an io thread.
//
// Coherence: attributes, entries and data are cached under leases; `valid` says how long the kernel may cache
// them too, and the InvalidationSink is told (on a thread of its own) when a lease is recalled, before the
// recall is answered. Writes are buffered (write-back) under an exclusive lease and flushed in the
// background, by fsync, and when memory runs out; a failed flush is reported by the next write, flush (close)
// or fsync of a handle of that file. Thread-safe. Errors: codes of store/base/result.h; fuse/errno.h alone
// turns them into errno.
#pragma once

#include <sys/types.h>

#include <atomic>

#include "client/client.h"
#include "store/base/lock_ranges.h"
#include "store/rpc/message.h"
#include "store/rpc/task.h"

namespace cairn {

struct Attr {
  InodeId inode;
  std::uint32_t mode = 0;  // as st_mode
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t bytes = 0;  // allocated
  std::int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0, btime_ns = 0;
};
struct Entry {
  Attr attr;
  Duration valid{0};  // how long name and attributes may be cached outside; 0: not at all
};
struct NegativeEntry {
  Duration valid{0};
};  // the name does not exist, for so long

enum : std::uint32_t {  // SetAttr::valid, as on the wire
  kSetMode = 1,
  kSetUid = 2,
  kSetGid = 4,
  kSetSize = 8,
  kSetAtime = 16,
  kSetMtime = 32,
  kSetAtimeNow = 64,
  kSetMtimeNow = 128,
  kSetCtime = 256,
};
struct SetAttr {
  std::uint32_t valid = 0;
  Attr attr;
};
struct Owner {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  // Taken off the mode of what is made, unless the directory has a default access control list.
  std::uint32_t umask = 0;
};

class FileHandle;  // one open of a file; shared_ptr holders keep it open
using Handle = std::shared_ptr<FileHandle>;
struct Opened {
  Handle handle;
  Entry entry;
  bool keep_cache = false;
};  // keep_cache: the kernel's pages are still right

struct DirEntry {
  std::string name;
  InodeId inode;
  std::uint32_t type = 0;
  std::uint64_t cookie = 0;
  std::optional<Entry> entry;
};
struct DirPage {
  std::vector<DirEntry> entries;
  bool end = false;
  InodeId parent;
};
struct StatFs {
  std::uint64_t total_bytes = 0;
  std::uint64_t available_bytes = 0;
  std::uint64_t files = 0;
  std::uint64_t files_max = 0;  // of the tightest quota, which `files` then count to; 0: none
};

// File locks: docs/locks.md. The two kinds do not see each other.
enum class LockKind : std::uint8_t { kRecord = 0, kFlock = 1 };  // kRecord: byte ranges, POSIX and OFD
struct LockSpec {
  LockKind kind = LockKind::kRecord;
  LockType type = LockType::kNone;  // kNone: unlock
  LockRange range;
  std::uint64_t owner = 0;  // one of this client's; locks of one owner never conflict with each other
  std::uint32_t pid = 0;    // told to who asks what is in the way; 0: of another client
};
enum class LockResult : std::uint8_t { kGranted, kConflict, kDeadlock, kInterrupted };

// One wait for a lock, to be interrupted from any thread. If the lock is granted at that moment, it stays
// granted.
class LockWait {
 public:
  explicit LockWait(rpc::Runtime& runtime) : changed_(runtime) {}
  void interrupt() {
    interrupted_ = true;
    changed_.set();
  }
  bool interrupted() const { return interrupted_; }
  rpc::Event& changed() { return changed_; }

 private:
  std::atomic<bool> interrupted_{false};
  rpc::Event changed_;
};

class InvalidationSink {
 public:
  virtual ~InvalidationSink() = default;
  // Attributes; with data: pages too. Returns when they are dropped, or when that has to wait for something
  // that may wait for the caller. `dropped` is called once, on any thread, when really nothing is left.
  virtual void invalidate_inode(InodeId inode, bool data, std::function<void()> dropped) = 0;
  virtual void invalidate_entry(InodeId parent, std::string_view name) = 0;
  // They are kept here only because the kernel was told of them: it may forget those that no process uses.
  virtual void release_inodes(const std::vector<InodeId>&) {}
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  template <class T>
  using Task = rpc::Task<Result<T>>;
  template <class T>
  void spawn(Task<T> task, std::function<void(Result<T>)> done);
  template <class T>
  Result<T> block_on(Task<T> task);  // not from an io thread

  virtual void set_invalidation_sink(InvalidationSink* sink) = 0;  // before the first call; null to detach
  virtual rpc::Runtime& runtime() = 0;

  // The try_ forms answer from the cache on the calling thread, without suspending; nullopt: use the
  // coroutine. They hold light locks only and are right for any thread.
  virtual std::optional<Result<Entry>> try_lookup(InodeId parent, std::string_view name,
                                                  NegativeEntry* negative = nullptr) = 0;
  virtual std::optional<Result<Entry>> try_getattr(InodeId inode) = 0;
  // Changes that are this host's to make: times of a file held exclusively, an owner or a mode that it has
  // already (archivers set all three of each file).
  virtual std::optional<Result<Entry>> try_setattr(InodeId inode, const SetAttr& change) {
    (void)inode, (void)change;
    return std::nullopt;
  }
  virtual std::optional<Result<Opened>> try_open(InodeId inode, int flags) = 0;
  virtual std::optional<Result<rpc::Payload>> try_read(const Handle& handle, std::uint64_t offset,
                                                       std::uint32_t length) = 0;
  virtual std::optional<Result<>> try_flush(const Handle& handle) = 0;
  // Asked before every write for "security.capability": a cache that knows the attributes (of a file just
  // created: none) answers kNoAttribute here.
  virtual std::optional<Result<std::string>> try_getxattr(InodeId inode, std::string_view name) {
    (void)inode, (void)name;
    return std::nullopt;
  }
  // Never suspends and cannot fail: the server hears of it with the next report.
  virtual void release_now(Handle handle) = 0;

  // kNotFound also fills `negative` when it may be cached.
  virtual Task<Entry> lookup(InodeId parent, std::string name, NegativeEntry* negative = nullptr) = 0;
  // The kernel forgot the inode `count` lookups: caches about it may go.
  // Until then an inode whose last name went on this host must stay usable here, also open(): a process may
  // be between looking the name up and opening what it found (a reader of a file that is replaced by rename).
  virtual void forget(InodeId inode, std::uint64_t count) = 0;
  virtual Task<Entry> getattr(InodeId inode) = 0;
  virtual Task<Entry> setattr(InodeId inode, SetAttr change) = 0;  // size included
  virtual Task<Entry> mknod(InodeId parent, std::string name, std::uint32_t mode, std::uint64_t rdev,
                            Owner owner) = 0;
  virtual Task<Entry> mkdir(InodeId parent, std::string name, std::uint32_t mode, Owner owner) = 0;
  virtual Task<Entry> symlink(InodeId parent, std::string name, std::string target, Owner owner) = 0;
  virtual Task<std::string> readlink(InodeId inode) = 0;
  // `owner`: who does it; what is kept in the trash says so.
  virtual Task<void> unlink(InodeId parent, std::string name, Owner owner = {}) = 0;
  virtual Task<void> rmdir(InodeId parent, std::string name) = 0;
  // `owner`: who does it, and of the whiteout that flag 4 leaves.
  virtual Task<void> rename(InodeId parent, std::string name, InodeId new_parent, std::string new_name,
                            std::uint32_t flags, Owner owner = {}) = 0;
  virtual Task<Entry> link(InodeId inode, InodeId parent, std::string name) = 0;
  virtual Task<DirPage> readdir(InodeId dir, std::uint64_t cookie, std::uint32_t limit, bool plus) = 0;
  // As seen from `inode`: the quotas above it count.
  virtual Task<StatFs> statfs(InodeId inode = kRootInode) = 0;
  virtual Task<std::string> getxattr(InodeId inode, std::string name) = 0;
  virtual Task<std::vector<std::string>> listxattr(InodeId inode) = 0;
  virtual Task<void> setxattr(InodeId inode, std::string name, std::string value, std::uint32_t flags) = 0;
  virtual Task<void> removexattr(InodeId inode, std::string name) = 0;

  // `flags` as open(2): access mode, O_TRUNC, O_APPEND, O_EXCL (create).
  virtual Task<Opened> create(InodeId parent, std::string name, std::uint32_t mode, int flags,
                              Owner owner) = 0;
  virtual Task<Opened> open(InodeId inode, int flags) = 0;
  // Payload pieces covering [offset, offset+length) cut at the end of file; holes are zeros. No copy of
  // cached chunk data.
  virtual Task<rpc::Payload> read(Handle handle, std::uint64_t offset, std::uint32_t length) = 0;
  // Copies `data` into the write-back buffer before its first suspension, so the caller's bytes need only
  // live that long when it returns `true` from try_write(); otherwise write() waits for memory or a lease.
  // Returns bytes written; for an append handle `offset` is ignored.
  virtual std::optional<Result<std::uint32_t>> try_write(const Handle& handle, std::uint64_t offset,
                                                         Bytes data) = 0;
  virtual Task<std::uint32_t> write(Handle handle, std::uint64_t offset, rpc::Buffer data) = 0;
  virtual Task<void> flush(Handle handle) = 0;                  // close(2): reports earlier write-back errors
  virtual Task<void> fsync(Handle handle, bool data_only) = 0;  // durable on return
  // fallocate(2), `mode` as there: 0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE; others: kUnimplemented.
  // Space is not set aside: there being room now is checked, and a later write may find the servers full.
  virtual Task<void> allocate(Handle handle, int mode, std::uint64_t offset, std::uint64_t length) = 0;
  // lseek(2) with SEEK_DATA or SEEK_HOLE; nullopt: no such place (ENXIO).
  virtual Task<std::optional<std::uint64_t>> seek(Handle handle, std::uint64_t offset, int whence) = 0;
  // copy_file_range(2): how many bytes were copied, perhaps fewer than asked; 0 at the end of the source.
  // Whole chunks become part of both files without being moved. Not for an append handle. Ranges of one file
  // must not overlap.
  virtual Task<std::uint64_t> copy_range(Handle from, std::uint64_t from_offset, Handle to,
                                         std::uint64_t to_offset, std::uint64_t length) {
    (void)from, (void)from_offset, (void)to, (void)to_offset, (void)length;
    co_return fail(Code::kUnimplemented, "no copying by the file system here");
  }
  // False: there are no locks here, and none of the following is called.
  virtual bool shares_locks() const { return false; }
  // Takes, converts or (kNone) gives back a lock. With `wait` it waits for as long as it takes, over restarts
  // of the server; without: kConflict. kSessionEnded: a lock taken through this handle was lost, see
  // docs/locks.md.
  virtual Task<LockResult> lock(Handle handle, LockSpec wanted, std::shared_ptr<LockWait> wait) {
    (void)handle, (void)wanted, (void)wait;
    co_return fail(Code::kUnimplemented, "no file locks here");
  }
  // What another owner has in the way.
  virtual Task<std::optional<LockSpec>> test_lock(Handle handle, LockSpec wanted) {
    (void)handle, (void)wanted;
    co_return fail(Code::kUnimplemented, "no file locks here");
  }
  // False: that owner has no record locks on the file, so that a close has nothing to give back.
  virtual bool may_hold_locks(const Handle& handle, std::uint64_t owner) const {
    (void)handle, (void)owner;
    return false;
  }
  // Ends all waits with kCancelled, and those to come: before the end of a mount.
  virtual void end_lock_waits() {}
  virtual Task<void> fsyncdir(InodeId dir) = 0;
  virtual Task<void> release(Handle handle) = 0;
  virtual Task<void> sync() = 0;  // everything, durable

  // --- by path, blocking, for programs ("/a/b", no ".." handling beyond the usual) ---
  virtual Result<Entry> stat(std::string_view path) = 0;
  virtual Result<std::string> read_file(std::string_view path) = 0;
  virtual Result<> write_file(std::string_view path, Bytes bytes,
                              std::uint32_t mode = 0644) = 0;  // durable on return
  virtual Result<> make_directories(std::string_view path, std::uint32_t mode = 0755) = 0;
  virtual Result<> remove(std::string_view path) = 0;
};

}  // namespace cairn

#include "client/file_system_inl.h"
