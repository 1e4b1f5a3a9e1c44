// FileSystemImpl: files over the metadata server and chunk I/O. Its operations stand in the files named after
// their role:
//   names.cc        lookup, make, remove, rename, link, and what is cached of directories
//   attributes.cc   getattr, setattr, symlink targets, statfs, extended attributes
//   directories.cc  readdir
//   handles.cc      open, create, read, write, flush, fsync, release
//   copy_range.cc   copy_file_range
//   recall.cc       what the server takes back, and the end of a session
//   paths.cc        blocking calls by path
// Thread-safe. Owner: the client, after the session; shut down with close().
#pragma once

#include "client/file_locks.h"
#include "client/invalidation.h"
#include "client/reader.h"
#include "client/truncate.h"

namespace cairn::client {

class FileSystemImpl final : public FileSystem, public LeaseHolder {
 public:
  FileSystemImpl(rpc::Runtime& runtime, Session& session, ChunkIo& chunks, const ClientOptions& options);
  ~FileSystemImpl() override;
  // Stores and reports everything, closes all files. Then the session may be closed.
  Result<> close(Deadline deadline);

  void set_invalidation_sink(InvalidationSink* sink) override;
  rpc::Runtime& runtime() override { return runtime_; }

  std::optional<Result<Entry>> try_lookup(InodeId parent, std::string_view name,
                                          NegativeEntry* negative) override;
  std::optional<Result<Entry>> try_getattr(InodeId inode) override;
  std::optional<Result<Entry>> try_setattr(InodeId inode, const SetAttr& change) override;
  std::optional<Result<Opened>> try_open(InodeId inode, int flags) override;
  std::optional<Result<rpc::Payload>> try_read(const Handle& handle, std::uint64_t offset,
                                               std::uint32_t length) override;
  std::optional<Result<>> try_flush(const Handle& handle) override;
  std::optional<Result<std::string>> try_getxattr(InodeId inode, std::string_view name) override;
  void release_now(Handle handle) override;

  Task<Entry> lookup(InodeId parent, std::string name, NegativeEntry* negative) override;
  void forget(InodeId inode, std::uint64_t count) override;
  Task<Entry> getattr(InodeId inode) override;
  Task<Entry> setattr(InodeId inode, SetAttr change) override;
  Task<Entry> mknod(InodeId parent, std::string name, std::uint32_t mode, std::uint64_t rdev,
                    Owner owner) override;
  Task<Entry> mkdir(InodeId parent, std::string name, std::uint32_t mode, Owner owner) override;
  Task<Entry> symlink(InodeId parent, std::string name, std::string target, Owner owner) override;
  Task<std::string> readlink(InodeId inode) override;
  Task<void> unlink(InodeId parent, std::string name, Owner owner) override;
  Task<void> rmdir(InodeId parent, std::string name) override;
  Task<void> rename(InodeId parent, std::string name, InodeId new_parent, std::string new_name,
                    std::uint32_t flags, Owner owner) override;
  Task<Entry> link(InodeId inode, InodeId parent, std::string name) override;
  Task<DirPage> readdir(InodeId dir, std::uint64_t cookie, std::uint32_t limit, bool plus) override;
  Task<StatFs> statfs(InodeId inode) override;
  Task<std::string> getxattr(InodeId inode, std::string name) override;
  Task<std::vector<std::string>> listxattr(InodeId inode) override;
  Task<void> setxattr(InodeId inode, std::string name, std::string value, std::uint32_t flags) override;
  Task<void> removexattr(InodeId inode, std::string name) override;

  Task<Opened> create(InodeId parent, std::string name, std::uint32_t mode, int flags, Owner owner) override;
  Task<Opened> open(InodeId inode, int flags) override;
  Task<rpc::Payload> read(Handle handle, std::uint64_t offset, std::uint32_t length) override;
  std::optional<Result<std::uint32_t>> try_write(const Handle& handle, std::uint64_t offset,
                                                 Bytes data) override;
  Task<std::uint32_t> write(Handle handle, std::uint64_t offset, rpc::Buffer data) override;
  Task<void> flush(Handle handle) override;
  Task<void> fsync(Handle handle, bool data_only) override;
  Task<void> allocate(Handle handle, int mode, std::uint64_t offset, std::uint64_t length) override;
  Task<std::optional<std::uint64_t>> seek(Handle handle, std::uint64_t offset, int whence) override;
  Task<std::uint64_t> copy_range(Handle from, std::uint64_t from_offset, Handle to, std::uint64_t to_offset,
                                 std::uint64_t length) override;
  bool shares_locks() const override { return true; }
  Task<LockResult> lock(Handle handle, LockSpec wanted, std::shared_ptr<LockWait> wait) override {
    return locks_.lock(std::move(handle), wanted, std::move(wait));
  }
  Task<std::optional<LockSpec>> test_lock(Handle handle, LockSpec wanted) override {
    return locks_.test(std::move(handle), wanted);
  }
  bool may_hold_locks(const Handle& handle, std::uint64_t owner) const override {
    return locks_.may_hold(handle->inode->id, owner);
  }
  void end_lock_waits() override { locks_.end_waits(); }
  Task<void> fsyncdir(InodeId dir) override;
  Task<void> release(Handle handle) override;
  Task<void> sync() override;

  Result<Entry> stat(std::string_view path) override;
  Result<std::string> read_file(std::string_view path) override;
  Result<> write_file(std::string_view path, Bytes bytes, std::uint32_t mode) override;
  Result<> make_directories(std::string_view path, std::uint32_t mode) override;
  Result<> remove(std::string_view path) override;

  rpc::Task<> recall(std::vector<RecallItem> items, std::uint64_t serial) override;
  Held held(std::uint64_t attachment) override;
  void drop_shared() override;
  void locks_settled(std::uint64_t epoch, std::vector<SettledLock> items) override {
    locks_.settled(epoch, items);
  }
  void session_ended(SessionId ended) override;

 private:
  // What a Make needs.
  struct Make {
    InodeId parent;
    std::string name;
    std::uint32_t mode = 0;
    std::uint64_t rdev = 0;
    Owner owner;
    std::string target;
    bool exclusive = true;
    bool open = false;
  };
  struct Made {
    InodeRef inode;
    AttrRecord attr;
    Entry entry;
    bool created = false;
    bool open = false;  // counted as open by the server
  };
  class NameChange;
  struct Listed {
    DirPage page;
    bool current = false;  // the directory stayed held, and unchanged by us
    std::uint64_t changes = 0;
    std::uint64_t lease_serial = 0;
  };

  rpc::Task<Result<Made>> make(Make what);
  rpc::Task<Result<>> remove_name(InodeId parent, std::string name, bool directory, Owner owner);
  rpc::Task<> recall_all(std::vector<RecallItem> items, std::shared_ptr<rpc::Event> all_done);
  rpc::Task<Result<>> recall_one(RecallItem item);
  rpc::Task<Result<>> give_back(InodeRef inode, Lease keep, Deadline deadline);
  rpc::Task<Result<>> invalidate(Invalidation what, Deadline deadline);
  rpc::Task<Result<>> dropped(InodeRef inode, Deadline deadline);
  // Permission bits that were changed here are known to the server on return.
  rpc::Task<Result<>> report_mode(InodeRef inode);
  // Attributes as they are now, for outside; counts a lookup by the kernel if asked to.
  enum class Counted { kNo, kYes };
  Entry entry_of(Inode& inode, Counted counted);  // under inode.mutex
  rpc::Task<Result<Entry>> refresh_attr(InodeRef inode, Counted counted);
  // None: the reply, to a request of time `sent`, may be out of date (InodeCache::take_attr).
  std::optional<Entry> entry_from(const InodeRef& inode, const AttrRecord& reply, TimePoint sent,
                                  Counted counted, Granted granted);
  // A page of a directory. What it says is cached, as far as it is current.
  rpc::Task<Result<Listed>> list_page(InodeRef dir, std::uint64_t cookie, std::uint32_t limit, bool plus,
                                      Counted counted);
  // A lookup is about to ask the server.
  void note_miss(const InodeRef& dir);
  rpc::Task<> fetch_entries(InodeRef dir, std::uint64_t count);
  // A directory after a change of ours; without attributes in the reply it is asked again when needed.
  void directory_changed(const InodeRef& dir, const std::optional<AttrRecord>& attr, TimePoint sent,
                         Granted granted);
  // Its last name may have gone; kept: the inode is in the trash, and all that is dirty of it still counts.
  enum class Kept { kNo, kYes };
  void name_lost(const InodeRef& inode, Kept kept);
  // Of a file, if it is known here: its size, reported or not.
  static std::uint64_t known_size(const InodeRef& inode);
  void close_if_unreachable(const InodeRef& inode);      // under inode.mutex
  Handle make_handle(const InodeRef& inode, int flags);  // under inode.mutex
  void released(FileHandle& handle);
  Task<std::uint64_t> copy_bytes(Handle from, std::uint64_t from_offset, Handle to, std::uint64_t to_offset,
                                 std::uint64_t length);
  // Zeros in [from, to) of what the file has; whole chunks become holes.
  rpc::Task<Result<>> zero(InodeRef inode, std::uint64_t from, std::uint64_t to, Deadline deadline);
  Result<InodeId> resolve(std::string_view path, std::string* last, InodeId* parent);

  rpc::Runtime& runtime_;
  Session& session_;
  const ClientOptions& options_;
  rpc::TaskGroup tasks_;
  Budget dirty_memory_;
  Budget ahead_memory_;
  InodeCache inodes_;
  FileContext context_;
  Reporter reporter_;
  WriteBack write_back_;
  Leases leases_;
  FileLocks locks_;
  Reader reader_;
  Invalidations invalidations_;
  const std::shared_ptr<FileHandle::Release> release_ =
      std::make_shared<FileHandle::Release>([this](FileHandle& handle) { released(handle); });
  std::atomic<bool> counting_{false};  // a mount is attached: lookups are counted, and forgotten by it
};

}  // namespace cairn::client
