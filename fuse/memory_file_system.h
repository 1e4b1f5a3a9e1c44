// The client's FileSystem held in memory, for tests of the FUSE front end: POSIX semantics, no network,
// faults on demand.
//
// It also speaks for the contract of client/file_system.h: cookies are stable, handles outlive unlink,
// kExists of an exclusive create. Thread-safe; everything happens at the call, tasks only carry the result
// (unless the operation was told to hang).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/client.h"
#include "client/file_system.h"

namespace cairn::fuse {

struct MemoryHandle {
  InodeId inode;
  int flags = 0;
};

class MemoryFileSystem final : public FileSystem {
 public:
  explicit MemoryFileSystem(rpc::Runtime& runtime);
  ~MemoryFileSystem() override;

  // --- for tests ---
  // At any time, also while mounted:
  std::atomic<bool> answers_at_once{true};  // the try_ forms answer; else everything goes by an io thread
  std::atomic<Duration> valid{std::chrono::seconds(30)};
  std::atomic<std::size_t> piece_bytes_max{1 << 20};  // of a read's pieces
  // The next call of `op` ("read", "fsync", ...) fails so.
  void fail_next(const std::string& op, Code code);
  // Calls of `op` wait (at most 60 s) until release_hung(). Waiting ones are counted.
  void hang(const std::string& op);
  void release_hung();
  int hanging() const { return hanging_; }
  int open_handles() const { return open_handles_; }
  int calls(const std::string& op) const;
  std::uint64_t forgotten() const { return forgotten_; }
  bool synced() const { return synced_; }
  InvalidationSink* sink() const { return sink_; }
  // What another host would do: changes the bytes behind the kernel's back.
  void write_elsewhere(InodeId inode, std::string bytes);
  InodeId inode_of(const std::string& name_in_root) const;
  void rename_elsewhere(const std::string& from, const std::string& to);

  // --- FileSystem ---
  void set_invalidation_sink(InvalidationSink* sink) override { sink_ = sink; }
  rpc::Runtime& runtime() override { return runtime_; }
  std::optional<Result<Entry>> try_lookup(InodeId parent, std::string_view name,
                                          NegativeEntry* negative) override;
  std::optional<Result<Entry>> try_getattr(InodeId inode) override;
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
  Task<void> fsyncdir(InodeId dir) override;
  Task<void> release(Handle handle) override;
  Task<void> sync() override;
  Result<Entry> stat(std::string_view path) override;
  Result<std::string> read_file(std::string_view path) override;
  Result<> write_file(std::string_view path, Bytes bytes, std::uint32_t mode) override;
  Result<> make_directories(std::string_view path, std::uint32_t mode) override;
  Result<> remove(std::string_view path) override;

 private:
  struct Node;
  struct Name {
    std::string name;
    InodeId inode;
  };

  // Returned by every operation: carries the result, after the hang that was asked for.
  template <class T>
  Task<T> carry(std::string op, Result<T> result);
  template <class T, class Work>
  Task<T> run(const char* op, Work work);
  Result<> fault(const std::string& op);

  // All below with mutex_ held.
  Result<Node*> node(InodeId inode);
  Result<Node*> directory(InodeId inode);
  Result<InodeId> find(Node& dir, const std::string& name) const;
  Entry entry_of(const Node& node) const;
  std::int64_t now();
  Result<Node*> make(InodeId parent, const std::string& name, std::uint32_t mode, Owner owner);
  void add_name(Node& dir, const std::string& name, InodeId inode);
  void drop_name(Node& dir, const std::string& name);
  void drop_link(Node& node);
  void collect(Node& node);  // if nobody can reach it any more
  Entry hand_out(Node& node);
  Result<> remove_name(InodeId parent, const std::string& name, bool is_directory);
  Result<> move_name(InodeId parent, const std::string& name, InodeId new_parent, const std::string& new_name,
                     std::uint32_t flags, Owner owner);
  Result<Opened> open_node(Node& node, int flags);
  std::string bytes_of(const Node& node, std::uint64_t offset, std::uint64_t length) const;
  Result<std::uint32_t> put_bytes(const Handle& handle, std::uint64_t offset, Bytes data);
  void resize(Node& node, std::uint64_t size);
  void note_access(Node& node, const Handle& handle);

  rpc::Runtime& runtime_;
  std::atomic<InvalidationSink*> sink_{nullptr};
  std::atomic<int> hanging_{0}, open_handles_{0};
  std::atomic<std::uint64_t> forgotten_{0};
  std::atomic<bool> synced_{false};
  mutable std::mutex mutex_;
  std::map<InodeId, std::unique_ptr<Node>> nodes_;
  std::uint64_t next_inode_ = 2, next_cookie_ = 1;
  std::int64_t last_time_ = 0;
  std::map<std::string, Code> faults_;
  std::map<std::string, std::shared_ptr<rpc::Event>> hangs_;
  std::map<std::string, int> calls_;
};

// A Client around it. `files_out`, if given, gets the file system while the client lives.
class MemoryClient final : public Client {
 public:
  explicit MemoryClient(std::function<void(MemoryFileSystem*)> announce = {});
  ~MemoryClient() override;
  Objects& objects() override;
  DirectoryAdmin& directories() override;
  FileSystem& files() override { return files_; }
  ClusterId cluster() const override { return ClusterId(1); }
  SessionId session() const override { return SessionId(1); }
  const Clock& clock() const override { return clock_; }
  Result<std::string> status(std::string_view) override { return std::string("{}"); }
  Result<> admin(AdminCommand, ServerId, Loss) override { return {}; }
  Result<> close() override { return {}; }

 private:
  SystemClock clock_;
  rpc::Runtime runtime_;
  MemoryFileSystem files_;
  std::function<void(MemoryFileSystem*)> announce_;
};

}  // namespace cairn::fuse
