#include "fuse/memory_file_system.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <utility>

namespace cairn::fuse {
namespace {

constexpr std::uint64_t kSpace = std::uint64_t{1} << 40;
constexpr std::size_t kBlock = 64 << 10;  // files are sparse in blocks of this

MemoryHandle& of(const Handle& handle) {
  return *reinterpret_cast<MemoryHandle*>(handle.get());
}

}  // namespace

struct MemoryFileSystem::Node {
  Attr attr;
  InodeId parent;  // of a directory
  std::map<std::uint64_t, std::string> blocks;
  std::string target;
  std::map<std::string, std::uint64_t> cookies;  // by name
  std::map<std::uint64_t, Name> names;           // by cookie
  std::map<std::string, std::string> xattrs;
  int opens = 0;
  bool known = false;  // to the kernel, which may be about to open it

  bool is(mode_t type) const { return (attr.mode & S_IFMT) == type; }
};

MemoryFileSystem::MemoryFileSystem(rpc::Runtime& runtime) : runtime_(runtime) {
  auto root = std::make_unique<Node>();
  root->attr = {.inode = kRootInode, .mode = S_IFDIR | 0755, .nlink = 2};
  root->attr.atime_ns = root->attr.mtime_ns = root->attr.ctime_ns = now();
  root->parent = kRootInode;
  nodes_[kRootInode] = std::move(root);
}

MemoryFileSystem::~MemoryFileSystem() = default;

// --- faults and delays ---

void MemoryFileSystem::fail_next(const std::string& op, Code code) {
  std::lock_guard lock(mutex_);
  faults_[op] = code;
}

void MemoryFileSystem::hang(const std::string& op) {
  std::lock_guard lock(mutex_);
  hangs_[op] = std::make_shared<rpc::Event>(runtime_);
}

void MemoryFileSystem::release_hung() {
  std::lock_guard lock(mutex_);
  for (auto& [op, event] : hangs_) event->set();
  hangs_.clear();
}

int MemoryFileSystem::calls(const std::string& op) const {
  std::lock_guard lock(mutex_);
  const auto found = calls_.find(op);
  return found == calls_.end() ? 0 : found->second;
}

Result<> MemoryFileSystem::fault(const std::string& op) {
  ++calls_[op];
  const auto found = faults_.find(op);
  if (found == faults_.end()) return {};
  const Code code = found->second;
  faults_.erase(found);
  return fail(code, op + " was told to fail");
}

template <class T>
FileSystem::Task<T> MemoryFileSystem::carry(std::string op, Result<T> result) {
  std::shared_ptr<rpc::Event> event;
  {
    std::lock_guard lock(mutex_);
    if (const auto found = hangs_.find(op); found != hangs_.end()) event = found->second;
  }
  if (event) {
    ++hanging_;
    auto waiting = event->wait(Deadline::after(runtime_.clock(), std::chrono::seconds(60)));
    auto woken = co_await std::move(waiting);
    --hanging_;
    if (!woken) result = std::unexpected(woken.error());
  }
  co_return result;
}

template <class T, class Work>
FileSystem::Task<T> MemoryFileSystem::run(const char* op, Work work) {
  std::lock_guard lock(mutex_);
  auto faulty = fault(op);
  return carry<T>(op, faulty ? work() : Result<T>(std::unexpected(faulty.error())));
}

// --- nodes and names ---

std::int64_t MemoryFileSystem::now() {
  last_time_ = std::max(last_time_ + 1, runtime_.clock().wall_ns());
  return last_time_;
}

Result<MemoryFileSystem::Node*> MemoryFileSystem::node(InodeId inode) {
  const auto found = nodes_.find(inode);
  if (found == nodes_.end()) return fail(Code::kStale, "no inode " + to_string(inode));
  return found->second.get();
}

Result<MemoryFileSystem::Node*> MemoryFileSystem::directory(InodeId inode) {
  TRY(Node * found, node(inode));
  if (!found->is(S_IFDIR)) return fail(Code::kNotDirectory, "not a directory");
  if (found->attr.nlink == 0) return fail(Code::kNotFound, "the directory was removed");
  return found;
}

Result<InodeId> MemoryFileSystem::find(Node& dir, const std::string& name) const {
  if (name.size() > 255) return fail(Code::kNameTooLong, "a name has at most 255 bytes");
  const auto found = dir.cookies.find(name);
  if (found == dir.cookies.end()) return fail(Code::kNotFound, "no '" + name + "'");
  return dir.names.at(found->second).inode;
}

Entry MemoryFileSystem::entry_of(const Node& node) const {
  Entry entry{node.attr, valid.load()};
  entry.attr.bytes = node.blocks.size() * kBlock;
  return entry;
}

void MemoryFileSystem::add_name(Node& dir, const std::string& name, InodeId inode) {
  const std::uint64_t cookie = next_cookie_++;
  dir.cookies[name] = cookie;
  dir.names[cookie] = {name, inode};
  dir.attr.mtime_ns = dir.attr.ctime_ns = now();
}

void MemoryFileSystem::drop_name(Node& dir, const std::string& name) {
  const auto found = dir.cookies.find(name);
  dir.names.erase(found->second);
  dir.cookies.erase(found);
  dir.attr.mtime_ns = dir.attr.ctime_ns = now();
}

void MemoryFileSystem::drop_link(Node& node) {
  node.attr.nlink = node.is(S_IFDIR) ? 0 : node.attr.nlink - 1;
  node.attr.ctime_ns = now();
  collect(node);
}

void MemoryFileSystem::collect(Node& node) {
  if (node.attr.nlink == 0 && node.opens == 0 && !node.known) nodes_.erase(node.attr.inode);
}

Entry MemoryFileSystem::hand_out(Node& node) {
  node.known = true;
  return entry_of(node);
}

void MemoryFileSystem::forget(InodeId inode, std::uint64_t count) {
  forgotten_ += count;
  std::lock_guard lock(mutex_);
  auto found = node(inode);
  if (!found) return;
  (*found)->known = false;
  collect(**found);
}

Result<MemoryFileSystem::Node*> MemoryFileSystem::make(InodeId parent, const std::string& name,
                                                       std::uint32_t mode, Owner owner) {
  TRY(Node * dir, directory(parent));
  auto existing = find(*dir, name);
  if (existing) return fail(Code::kExists, "'" + name + "' exists");
  if (existing.error().code() != Code::kNotFound) return fail(existing.error());
  auto made = std::make_unique<Node>();
  Attr& attr = made->attr;
  if (!S_ISLNK(mode)) mode &= ~(owner.umask & 0777);
  attr = {.inode = InodeId(next_inode_++), .mode = mode, .nlink = 1, .uid = owner.uid, .gid = owner.gid};
  if (dir->attr.mode & S_ISGID) {
    attr.gid = dir->attr.gid;
    if (S_ISDIR(mode)) attr.mode |= S_ISGID;
  }
  attr.atime_ns = attr.mtime_ns = attr.ctime_ns = attr.btime_ns = now();
  if (S_ISDIR(mode)) {
    attr.nlink = 2;
    made->parent = parent;
    ++dir->attr.nlink;
  }
  add_name(*dir, name, attr.inode);
  Node* out = made.get();
  nodes_[attr.inode] = std::move(made);
  return out;
}

Result<> MemoryFileSystem::remove_name(InodeId parent, const std::string& name, bool is_directory) {
  TRY(Node * dir, directory(parent));
  TRY(const InodeId inode, find(*dir, name));
  TRY(Node * victim, node(inode));
  if (is_directory) {
    if (!victim->is(S_IFDIR)) return fail(Code::kNotDirectory, "not a directory");
    if (!victim->names.empty()) return fail(Code::kNotEmpty, "not empty");
    --dir->attr.nlink;
  } else if (victim->is(S_IFDIR)) {
    return fail(Code::kIsDirectory, "a directory");
  }
  drop_name(*dir, name);
  drop_link(*victim);
  return {};
}

Result<> MemoryFileSystem::move_name(InodeId parent, const std::string& name, InodeId new_parent,
                                     const std::string& new_name, std::uint32_t flags, Owner owner) {
  TRY(Node * from, directory(parent));
  TRY(Node * to, directory(new_parent));
  TRY(const InodeId moved_id, find(*from, name));
  TRY(Node * moved, node(moved_id));
  auto target_id = find(*to, new_name);
  if (!target_id && target_id.error().code() != Code::kNotFound) return fail(target_id.error());
  if (flags & RENAME_EXCHANGE) {
    if (!target_id) return fail(target_id.error());
    TRY(Node * other, node(*target_id));
    auto adopt = [](Node& child, Node& old_parent, Node& parent_now, InodeId id) {
      if (!child.is(S_IFDIR)) return;
      child.parent = id;
      --old_parent.attr.nlink;
      ++parent_now.attr.nlink;
    };
    adopt(*moved, *from, *to, new_parent);
    adopt(*other, *to, *from, parent);
    from->names.at(from->cookies.at(name)).inode = *target_id;
    to->names.at(to->cookies.at(new_name)).inode = moved_id;
    for (Node* each : {from, to}) each->attr.mtime_ns = each->attr.ctime_ns = now();
    for (Node* each : {moved, other}) each->attr.ctime_ns = now();
    return {};
  }
  if (target_id) {
    if (flags & RENAME_NOREPLACE) return fail(Code::kExists, "'" + new_name + "' exists");
    if (*target_id == moved_id) return {};
    TRY(Node * target, node(*target_id));
    if (target->is(S_IFDIR) && !moved->is(S_IFDIR)) return fail(Code::kIsDirectory, "a directory");
    TRYV(remove_name(new_parent, new_name, moved->is(S_IFDIR)));
  }
  drop_name(*from, name);
  add_name(*to, new_name, moved_id);
  if (moved->is(S_IFDIR)) {
    moved->parent = new_parent;
    --from->attr.nlink;
    ++to->attr.nlink;
  }
  moved->attr.ctime_ns = now();
  if (flags & RENAME_WHITEOUT) TRYV(make(parent, name, S_IFCHR, owner));
  return {};
}

// --- bytes ---

void MemoryFileSystem::note_access(Node& node, const Handle& handle) {
  Attr& attr = node.attr;
  if ((of(handle).flags & O_NOATIME) != 0 || attr.atime_ns > std::max(attr.mtime_ns, attr.ctime_ns)) return;
  attr.atime_ns = now();
}

void MemoryFileSystem::resize(Node& node, std::uint64_t size) {
  if (size < node.attr.size) {
    node.blocks.erase(node.blocks.lower_bound((size + kBlock - 1) / kBlock), node.blocks.end());
    if (const auto last = node.blocks.find(size / kBlock); last != node.blocks.end()) {
      std::fill(last->second.begin() + static_cast<std::ptrdiff_t>(size % kBlock), last->second.end(), '\0');
    }
  }
  node.attr.size = size;
}

std::string MemoryFileSystem::bytes_of(const Node& node, std::uint64_t offset, std::uint64_t length) const {
  if (offset >= node.attr.size) return {};
  std::string out(std::min(length, node.attr.size - offset), '\0');
  for (std::uint64_t done = 0; done < out.size();) {
    const std::uint64_t at = offset + done, skip = at % kBlock;
    const std::uint64_t n = std::min<std::uint64_t>(kBlock - skip, out.size() - done);
    if (const auto block = node.blocks.find(at / kBlock); block != node.blocks.end()) {
      out.replace(done, n, block->second, skip, n);
    }
    done += n;
  }
  return out;
}

Result<std::uint32_t> MemoryFileSystem::put_bytes(const Handle& handle, std::uint64_t offset, Bytes data) {
  TRY(Node * file, node(of(handle).inode));
  if (of(handle).flags & O_APPEND) offset = file->attr.size;
  const std::string_view text = as_text(data);
  for (std::uint64_t done = 0; done < text.size();) {
    const std::uint64_t at = offset + done, skip = at % kBlock;
    const std::uint64_t n = std::min<std::uint64_t>(kBlock - skip, text.size() - done);
    std::string& block = file->blocks[at / kBlock];
    block.resize(kBlock);
    block.replace(skip, n, text.substr(done, n));
    done += n;
  }
  file->attr.size = std::max<std::uint64_t>(file->attr.size, offset + text.size());
  file->attr.mtime_ns = file->attr.ctime_ns = now();
  return static_cast<std::uint32_t>(text.size());
}

Result<Opened> MemoryFileSystem::open_node(Node& node, int flags) {
  if (flags & O_TRUNC) {
    resize(node, 0);
    node.attr.mtime_ns = node.attr.ctime_ns = now();
  }
  ++node.opens;
  ++open_handles_;
  auto handle = std::make_shared<MemoryHandle>(node.attr.inode, flags);
  // Under the client's opaque type; only the pointer is used.
  return Opened{Handle(handle, reinterpret_cast<FileHandle*>(handle.get())), entry_of(node), true};
}

void MemoryFileSystem::release_now(Handle handle) {
  std::lock_guard lock(mutex_);
  --open_handles_;
  auto found = node(of(handle).inode);
  if (!found) return;
  --(*found)->opens;
  collect(**found);
}

// --- at once ---

std::optional<Result<Entry>> MemoryFileSystem::try_lookup(InodeId parent, std::string_view name,
                                                          NegativeEntry* negative) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once || hangs_.contains("lookup") || faults_.contains("lookup")) return std::nullopt;
  auto dir = directory(parent);
  if (!dir) return fail(dir.error());
  auto found = find(**dir, std::string(name));
  if (found) return hand_out(**node(*found));
  if (negative != nullptr) negative->valid = valid.load();
  return fail(found.error());
}

std::optional<Result<Entry>> MemoryFileSystem::try_getattr(InodeId inode) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once || hangs_.contains("getattr") || faults_.contains("getattr")) return std::nullopt;
  auto found = node(inode);
  if (!found) return fail(found.error());
  return entry_of(**found);
}

std::optional<Result<Opened>> MemoryFileSystem::try_open(InodeId inode, int flags) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once || hangs_.contains("open") || faults_.contains("open")) return std::nullopt;
  auto found = node(inode);
  if (!found) return fail(found.error());
  return open_node(**found, flags);
}

std::optional<Result<rpc::Payload>> MemoryFileSystem::try_read(const Handle& handle, std::uint64_t offset,
                                                               std::uint32_t length) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once || hangs_.contains("read") || faults_.contains("read")) return std::nullopt;
  auto file = node(of(handle).inode);
  if (!file) return fail(file.error());
  note_access(**file, handle);
  rpc::Payload payload;
  payload.pieces.push_back(rpc::Buffer::take(bytes_of(**file, offset, length)));
  return payload;
}

std::optional<Result<>> MemoryFileSystem::try_flush(const Handle&) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once || hangs_.contains("flush") || faults_.contains("flush")) return std::nullopt;
  ++calls_["flush"];
  return Result<>();
}

std::optional<Result<std::string>> MemoryFileSystem::try_getxattr(InodeId inode, std::string_view name) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once) return std::nullopt;
  auto found = node(inode);
  if (!found) return fail(found.error());
  const auto value = (*found)->xattrs.find(std::string(name));
  if (value == (*found)->xattrs.end()) return fail(Code::kNoAttribute, "no such attribute");
  return value->second;
}

std::optional<Result<std::uint32_t>> MemoryFileSystem::try_write(const Handle& handle, std::uint64_t offset,
                                                                 Bytes data) {
  std::lock_guard lock(mutex_);
  if (!answers_at_once || hangs_.contains("write") || faults_.contains("write")) return std::nullopt;
  ++calls_["write"];
  return put_bytes(handle, offset, data);
}

// --- operations ---

FileSystem::Task<Entry> MemoryFileSystem::lookup(InodeId parent, std::string name, NegativeEntry* negative) {
  return run<Entry>("lookup", [&]() -> Result<Entry> {
    TRY(Node * dir, directory(parent));
    auto found = find(*dir, name);
    if (!found && found.error().code() == Code::kNotFound && negative != nullptr)
      negative->valid = valid.load();
    if (!found) return fail(found.error());
    return hand_out(**node(*found));
  });
}

FileSystem::Task<Entry> MemoryFileSystem::getattr(InodeId inode) {
  return run<Entry>("getattr", [&]() -> Result<Entry> {
    TRY(Node * found, node(inode));
    return entry_of(*found);
  });
}

FileSystem::Task<Entry> MemoryFileSystem::setattr(InodeId inode, SetAttr change) {
  return run<Entry>("setattr", [&]() -> Result<Entry> {
    TRY(Node * found, node(inode));
    Attr& attr = found->attr;
    const std::uint32_t set = change.valid;
    const std::int64_t time = now();
    if (set & kSetMode) attr.mode = (attr.mode & S_IFMT) | (change.attr.mode & 07777);
    if (set & kSetUid) attr.uid = change.attr.uid;
    if (set & kSetGid) attr.gid = change.attr.gid;
    if (set & kSetSize) {
      resize(*found, change.attr.size);
      attr.mtime_ns = time;
    }
    if (set & kSetAtime) attr.atime_ns = change.attr.atime_ns;
    if (set & kSetMtime) attr.mtime_ns = change.attr.mtime_ns;
    if (set & kSetAtimeNow) attr.atime_ns = time;
    if (set & kSetMtimeNow) attr.mtime_ns = time;
    attr.ctime_ns = time;
    return entry_of(*found);
  });
}

FileSystem::Task<Entry> MemoryFileSystem::mknod(InodeId parent, std::string name, std::uint32_t mode,
                                                std::uint64_t rdev, Owner owner) {
  return run<Entry>("mknod", [&]() -> Result<Entry> {
    TRY(Node * made, make(parent, name, mode, owner));
    made->attr.rdev = rdev;
    return hand_out(*made);
  });
}

FileSystem::Task<Entry> MemoryFileSystem::mkdir(InodeId parent, std::string name, std::uint32_t mode,
                                                Owner owner) {
  return run<Entry>("mkdir", [&]() -> Result<Entry> {
    TRY(Node * made, make(parent, name, mode, owner));
    return hand_out(*made);
  });
}

FileSystem::Task<Entry> MemoryFileSystem::symlink(InodeId parent, std::string name, std::string target,
                                                  Owner owner) {
  return run<Entry>("symlink", [&]() -> Result<Entry> {
    TRY(Node * made, make(parent, name, S_IFLNK | 0777, owner));
    made->attr.size = target.size();
    made->target = target;
    return hand_out(*made);
  });
}

FileSystem::Task<std::string> MemoryFileSystem::readlink(InodeId inode) {
  return run<std::string>("readlink", [&]() -> Result<std::string> {
    TRY(Node * found, node(inode));
    return found->target;
  });
}

FileSystem::Task<void> MemoryFileSystem::unlink(InodeId parent, std::string name, Owner) {
  return run<void>("unlink", [&] { return remove_name(parent, name, false); });
}

FileSystem::Task<void> MemoryFileSystem::rmdir(InodeId parent, std::string name) {
  return run<void>("rmdir", [&] { return remove_name(parent, name, true); });
}

FileSystem::Task<void> MemoryFileSystem::rename(InodeId parent, std::string name, InodeId new_parent,
                                                std::string new_name, std::uint32_t flags, Owner owner) {
  return run<void>("rename", [&] { return move_name(parent, name, new_parent, new_name, flags, owner); });
}

FileSystem::Task<Entry> MemoryFileSystem::link(InodeId inode, InodeId parent, std::string name) {
  return run<Entry>("link", [&]() -> Result<Entry> {
    TRY(Node * dir, directory(parent));
    TRY(Node * file, node(inode));
    auto existing = find(*dir, name);
    if (existing) return fail(Code::kExists, "'" + name + "' exists");
    if (existing.error().code() != Code::kNotFound) return fail(existing.error());
    add_name(*dir, name, inode);
    ++file->attr.nlink;
    file->attr.ctime_ns = now();
    return hand_out(*file);
  });
}

FileSystem::Task<DirPage> MemoryFileSystem::readdir(InodeId dir, std::uint64_t cookie, std::uint32_t limit,
                                                    bool plus) {
  return run<DirPage>("readdir", [&]() -> Result<DirPage> {
    TRY(Node * listed, node(dir));
    DirPage page{.parent = listed->parent};
    auto at = listed->names.upper_bound(cookie);
    for (; at != listed->names.end() && page.entries.size() < limit; ++at) {
      TRY(Node * named, node(at->second.inode));
      DirEntry entry{at->second.name, at->second.inode, named->attr.mode & S_IFMT, at->first, std::nullopt};
      if (plus) entry.entry = hand_out(*named);
      page.entries.push_back(std::move(entry));
    }
    page.end = at == listed->names.end();
    return page;
  });
}

FileSystem::Task<StatFs> MemoryFileSystem::statfs(InodeId) {
  return run<StatFs>("statfs", [&]() -> Result<StatFs> {
    return StatFs{1ULL << 40, 1ULL << 39, nodes_.size()};
  });
}

FileSystem::Task<std::string> MemoryFileSystem::getxattr(InodeId inode, std::string name) {
  return run<std::string>("getxattr", [&]() -> Result<std::string> {
    TRY(Node * found, node(inode));
    const auto value = found->xattrs.find(name);
    if (value == found->xattrs.end()) return fail(Code::kNoAttribute, "no such attribute");
    return value->second;
  });
}

FileSystem::Task<std::vector<std::string>> MemoryFileSystem::listxattr(InodeId inode) {
  return run<std::vector<std::string>>("listxattr", [&]() -> Result<std::vector<std::string>> {
    TRY(Node * found, node(inode));
    std::vector<std::string> names;
    for (const auto& [name, value] : found->xattrs) names.push_back(name);
    return names;
  });
}

FileSystem::Task<void> MemoryFileSystem::setxattr(InodeId inode, std::string name, std::string value,
                                                  std::uint32_t flags) {
  return run<void>("setxattr", [&]() -> Result<> {
    TRY(Node * found, node(inode));
    if (!name.starts_with("user.") && !name.starts_with("trusted.") && !name.starts_with("security.")) {
      return fail(Code::kUnimplemented, "unknown namespace of attributes");
    }
    const bool there = found->xattrs.contains(name);
    if ((flags & XATTR_CREATE) && there) return fail(Code::kExists, "the attribute exists");
    if ((flags & XATTR_REPLACE) && !there) return fail(Code::kNoAttribute, "no such attribute");
    found->xattrs[name] = value;
    found->attr.ctime_ns = now();
    return {};
  });
}

FileSystem::Task<void> MemoryFileSystem::removexattr(InodeId inode, std::string name) {
  return run<void>("removexattr", [&]() -> Result<> {
    TRY(Node * found, node(inode));
    if (found->xattrs.erase(name) == 0) return fail(Code::kNoAttribute, "no such attribute");
    found->attr.ctime_ns = now();
    return {};
  });
}

FileSystem::Task<Opened> MemoryFileSystem::create(InodeId parent, std::string name, std::uint32_t mode,
                                                  int flags, Owner owner) {
  return run<Opened>("create", [&]() -> Result<Opened> {
    TRY(Node * made, make(parent, name, mode, owner));
    made->known = true;
    return open_node(*made, flags);
  });
}

FileSystem::Task<Opened> MemoryFileSystem::open(InodeId inode, int flags) {
  return run<Opened>("open", [&]() -> Result<Opened> {
    TRY(Node * found, node(inode));
    return open_node(*found, flags);
  });
}

FileSystem::Task<rpc::Payload> MemoryFileSystem::read(Handle handle, std::uint64_t offset,
                                                      std::uint32_t length) {
  return run<rpc::Payload>("read", [&]() -> Result<rpc::Payload> {
    TRY(Node * file, node(of(handle).inode));
    note_access(*file, handle);
    rpc::Payload payload;
    const auto whole = rpc::Buffer::take(bytes_of(*file, offset, length));
    // In uneven pieces, as chunks would give them.
    for (std::size_t at = 0, step = 100; at < whole.size();
         at += step, step = std::min(step * 2, piece_bytes_max.load())) {
      payload.pieces.push_back(whole.slice(at, std::min(step, whole.size() - at)));
    }
    return payload;
  });
}

FileSystem::Task<std::uint32_t> MemoryFileSystem::write(Handle handle, std::uint64_t offset,
                                                        rpc::Buffer data) {
  return run<std::uint32_t>("write", [&] { return put_bytes(handle, offset, data.bytes()); });
}

FileSystem::Task<void> MemoryFileSystem::flush(Handle) {
  return run<void>("flush", [] { return Result<>(); });
}

FileSystem::Task<void> MemoryFileSystem::fsync(Handle, bool data_only) {
  return run<void>(data_only ? "fdatasync" : "fsync", [] { return Result<>(); });
}

FileSystem::Task<void> MemoryFileSystem::allocate(Handle handle, int mode, std::uint64_t offset,
                                                  std::uint64_t length) {
  return run<void>("fallocate", [&]() -> Result<> {
    TRY(Node * file, node(of(handle).inode));
    const std::uint64_t end = offset + length, size = file->attr.size;
    if (length > kSpace) return fail(Code::kNoSpace, "no room for so much");
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
      for (std::uint64_t at = offset; at < std::min(end, size);) {
        const std::uint64_t next = std::min({end, size, (at / kBlock + 1) * kBlock});
        if (next - at == kBlock) {
          file->blocks.erase(at / kBlock);
        } else if (const auto block = file->blocks.find(at / kBlock); block != file->blocks.end()) {
          block->second.replace(at % kBlock, next - at, next - at, '\0');
        }
        at = next;
      }
    }
    if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && end > size) resize(*file, end);
    return {};
  });
}

FileSystem::Task<std::optional<std::uint64_t>> MemoryFileSystem::seek(Handle handle, std::uint64_t offset,
                                                                      int whence) {
  using Place = std::optional<std::uint64_t>;
  return run<Place>("lseek", [&]() -> Result<Place> {
    TRY(Node * file, node(of(handle).inode));
    const std::uint64_t size = file->attr.size;
    for (std::uint64_t at = offset; at < size; at = (at / kBlock + 1) * kBlock) {
      if (file->blocks.contains(at / kBlock) == (whence == SEEK_DATA)) return Place(at);
    }
    return whence == SEEK_HOLE && offset < size ? Place(size) : Place();
  });
}

FileSystem::Task<void> MemoryFileSystem::fsyncdir(InodeId) {
  return run<void>("fsyncdir", [] { return Result<>(); });
}

FileSystem::Task<void> MemoryFileSystem::release(Handle handle) {
  release_now(std::move(handle));
  return run<void>("release", [] { return Result<>(); });
}

FileSystem::Task<void> MemoryFileSystem::sync() {
  return run<void>("sync", [this] {
    synced_ = true;
    return Result<>();
  });
}

// --- another host ---

InodeId MemoryFileSystem::inode_of(const std::string& name_in_root) const {
  std::lock_guard lock(mutex_);
  return *find(*nodes_.at(kRootInode), name_in_root);
}

void MemoryFileSystem::write_elsewhere(InodeId inode, std::string bytes) {
  std::lock_guard lock(mutex_);
  Node& file = *nodes_.at(inode);
  resize(file, 0);
  auto handle = std::make_shared<MemoryHandle>(inode, O_RDWR);
  CHECK(
      put_bytes(Handle(handle, reinterpret_cast<FileHandle*>(handle.get())), 0, as_bytes(bytes)).has_value(),
      "writes");
}

void MemoryFileSystem::rename_elsewhere(const std::string& from, const std::string& to) {
  std::lock_guard lock(mutex_);
  CHECK(move_name(kRootInode, from, kRootInode, to, 0, {}).has_value(), "renames");
}

// --- by path: not what the front end uses ---

Result<Entry> MemoryFileSystem::stat(std::string_view) {
  return fail(Code::kUnimplemented, "by inode only");
}
Result<std::string> MemoryFileSystem::read_file(std::string_view) {
  return fail(Code::kUnimplemented, "by inode only");
}
Result<> MemoryFileSystem::write_file(std::string_view, Bytes, std::uint32_t) {
  return fail(Code::kUnimplemented, "by inode only");
}
Result<> MemoryFileSystem::make_directories(std::string_view, std::uint32_t) {
  return fail(Code::kUnimplemented, "by inode only");
}
Result<> MemoryFileSystem::remove(std::string_view) {
  return fail(Code::kUnimplemented, "by inode only");
}

MemoryClient::MemoryClient(std::function<void(MemoryFileSystem*)> announce)
    : runtime_(clock_, 2, "memory"), files_(runtime_), announce_(std::move(announce)) {
  if (announce_) announce_(&files_);
}

MemoryClient::~MemoryClient() {
  if (announce_) announce_(nullptr);
  files_.release_hung();
  runtime_.stop();
}

Objects& MemoryClient::objects() {
  check_failed("objects", __FILE__, __LINE__, "this client has files only");
}

DirectoryAdmin& MemoryClient::directories() {
  check_failed("directories", __FILE__, __LINE__, "this client has files only");
}

}  // namespace cairn::fuse
