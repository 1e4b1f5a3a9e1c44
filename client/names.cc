// Names: lookup, and the operations that change directories.
//
// A directory's entries are cached while it is held. A change of our own is applied to the cache when its
// reply comes, and a lookup's answer is taken only if no change of ours ran beside it: replies overtake each
// other.
#include <sys/stat.h>

#include "client/file_system_impl.h"

namespace cairn::client {

namespace {
constexpr std::size_t kNameBytesMax = 255;
}

Granted granted(const std::vector<Grant>& grants, InodeId inode) {
  const bool found =
      std::any_of(grants.begin(), grants.end(), [&](const Grant& grant) { return grant.inode == inode; });
  return found ? Granted::kYes : Granted::kNo;
}

// One change of one name, from before it is sent until its reply is applied.
class FileSystemImpl::NameChange {
 public:
  NameChange(InodeRef dir, std::string name) : dir_(std::move(dir)), name_(std::move(name)) {
    std::lock_guard lock(dir_->mutex);
    ++dir_->requests;
    lease_serial_ = dir_->lease_serial;
    Directory& entries = dir_->directory();
    ++entries.changes;
    auto& changing = entries.changing[name_];
    if (++changing.count > 1) changing.tainted = true;
  }
  // Ended without a known result: the name is looked up again.
  ~NameChange() {
    if (!ended_) end(std::nullopt, Valid::kNo);
  }
  NameChange(const NameChange&) = delete;

  enum class Valid { kNo, kYes };
  // `now`: what the name leads to (none: nothing). `valid`: the directory is held. True: the name is cached
  // here, so that the kernel will be told when it changes.
  bool end(std::optional<InodeId> now, Valid valid) {
    ended_ = true;
    std::lock_guard lock(dir_->mutex);
    --dir_->requests;
    Directory& entries = dir_->directory();
    ++entries.changes;
    auto it = entries.changing.find(name_);
    // Held all the time: else the name may have changed since the server did it.
    const bool known =
        now.has_value() && !it->second.tainted && valid == Valid::kYes && dir_->lease_serial == lease_serial_;
    if (--it->second.count == 0) entries.changing.erase(it);
    if (!known) {
      // What stands under the name is not known here.
      entries.entries.insert_or_assign(name_, kUnknownEntry);
      entries.complete = false;
    } else if (now->valid() || !entries.complete) {
      entries.entries.insert_or_assign(name_, *now);
    } else {
      entries.entries.erase(name_);
    }
    return known;
  }

 private:
  InodeRef dir_;
  std::string name_;
  std::uint64_t lease_serial_ = 0;
  bool ended_ = false;
};

Entry FileSystemImpl::entry_of(Inode& inode, Counted counted) {
  if (counted == Counted::kYes && counting_) ++inode.lookups;
  Entry entry{inode.attr.attr, inode.have_attr ? inodes_.valid(inode) : Duration{0}};
  // What is written here counts from the write on, not from its report.
  if (inode.file && inode.have_layout && inode.lease == Lease::kExclusive)
    entry.attr.bytes = allocated_bytes(inode);
  return entry;
}

std::optional<Entry> FileSystemImpl::entry_from(const InodeRef& inode, const AttrRecord& reply,
                                                TimePoint sent, Counted counted, Granted granted) {
  if (!inodes_.take_attr(*inode, reply, sent, granted)) return std::nullopt;
  std::lock_guard lock(inode->mutex);
  Entry entry = entry_of(*inode, counted);
  // Not held: the answer is right now, and must not be cached, here or outside.
  if (!inodes_.usable(*inode)) {
    inode->have_attr = false;
    inode->no_xattrs = false;
    entry.valid = Duration{0};
  }
  return entry;
}

std::optional<Result<Entry>> FileSystemImpl::try_lookup(InodeId parent, std::string_view name,
                                                        NegativeEntry* negative) {
  // Not "no such name": a directory that is known completely would say so.
  if (name.size() > kNameBytesMax) return fail(Code::kNameTooLong, "a name may have at most 255 bytes");
  InodeRef dir = inodes_.find(parent);
  if (!dir) return std::nullopt;
  InodeId child;
  {
    std::lock_guard lock(dir->mutex);
    if (!dir->dir || !inodes_.usable(*dir) || dir->recalling) return std::nullopt;
    auto it = dir->dir->entries.find(name);
    const bool absent = it == dir->dir->entries.end() ? dir->dir->complete : !it->second.valid();
    if (absent && !dir->dir->changing.contains(name)) {
      if (negative != nullptr) negative->valid = inodes_.valid(*dir);
      // The kernel will remember it: by this entry it is told when the name may exist.
      if (counting_ && it == dir->dir->entries.end()) dir->dir->entries.emplace(name, InodeId{});
      return fail(Code::kNotFound, "no such name in directory " + to_string(parent));
    }
    if (it == dir->dir->entries.end() || !it->second.valid() || it->second == kUnknownEntry)
      return std::nullopt;
    child = it->second;
    ++dir->dir->ahead.hits;
  }
  InodeRef inode = inodes_.find(child);
  if (!inode) return std::nullopt;
  std::lock_guard lock(inode->mutex);
  if (!inode->have_attr || !inodes_.usable(*inode) || inode->recalling) return std::nullopt;
  return entry_of(*inode, Counted::kYes);
}

FileSystem::Task<Entry> FileSystemImpl::lookup(InodeId parent, std::string name, NegativeEntry* negative) {
  if (auto known = try_lookup(parent, name, negative)) co_return std::move(*known);
  InodeRef dir = inodes_.get(parent);
  note_miss(dir);
  std::uint64_t changes = 0;
  bool quiet = false;
  {
    std::lock_guard lock(dir->mutex);
    changes = dir->directory().changes;
    quiet = dir->directory().changing.empty();
  }
  RequestMark mark(dir);
  std::function<void(schema::LookupRequest::Builder, std::uint64_t)> fill =
      [&](schema::LookupRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setParent(parent.value());
        body.setName(rpc::data(name));
      };
  const TimePoint sent = runtime_.clock().now();
  Stamp stamp;
  auto reply = co_await session_.query<rpc::method::Lookup>(std::move(fill), context_.deadline(), &stamp);
  if (!reply) co_return fail(std::move(reply.error()));
  CO_TRY(auto answer, decoded("Lookup", [&] {
           return std::pair(decode((*reply)->getAttr()), decode((*reply)->getGrants()));
         }));
  inodes_.take_grants(stamp, answer.second);
  const InodeId child = answer.first.attr.inode;
  Duration valid{0};
  {
    std::lock_guard lock(dir->mutex);
    Directory& entries = dir->directory();
    const bool current =
        quiet && entries.changes == changes && inodes_.holds(*dir, sent, granted(answer.second, parent));
    if (current) {
      entries.entries.insert_or_assign(name, child);
      valid = inodes_.valid(*dir);
    }
  }
  if (!child.valid()) {
    if (negative != nullptr) negative->valid = valid;
    co_return fail(Code::kNotFound, "no such name in directory " + to_string(parent));
  }
  InodeRef inode = inodes_.get(child);
  auto entry = entry_from(inode, answer.first, sent, Counted::kYes, granted(answer.second, inode->id));
  if (!entry) {
    auto fresh = co_await refresh_attr(inode, Counted::kYes);
    if (!fresh) co_return fresh;
    entry = std::move(*fresh);
  }
  entry->valid = std::min(entry->valid, valid);
  co_return std::move(*entry);
}

void FileSystemImpl::forget(InodeId id, std::uint64_t count) {
  InodeRef inode = inodes_.find(id);
  if (!inode) return;
  std::lock_guard lock(inode->mutex);
  inode->lookups -= std::min(inode->lookups, count);
  close_if_unreachable(inode);
}

void FileSystemImpl::directory_changed(const InodeRef& dir, const std::optional<AttrRecord>& attr,
                                       TimePoint sent, Granted granted) {
  if (attr && attr->attr.inode == dir->id) {
    const bool taken = inodes_.take_attr(*dir, *attr, sent, granted);
    std::lock_guard lock(dir->mutex);
    if (!taken) dir->have_attr = false;
    if (!inodes_.usable(*dir)) dir->have_attr = dir->no_xattrs = false;
    return;
  }
  std::lock_guard lock(dir->mutex);
  dir->have_attr = false;
}

// --- making ---

rpc::Task<Result<FileSystemImpl::Made>> FileSystemImpl::make(Make what) {
  InodeRef dir = inodes_.get(what.parent);
  NameChange change(dir, what.name);
  std::function<void(schema::MakeRequest::Builder)> fill = [&](schema::MakeRequest::Builder body) {
    body.setParent(what.parent.value());
    body.setName(rpc::data(what.name));
    const std::uint32_t umask = S_ISLNK(what.mode) ? 0 : what.owner.umask & 0777;
    body.setMode(what.mode & ~umask);
    body.setFullMode(what.mode & 0777);
    body.setUid(what.owner.uid);
    body.setGid(what.owner.gid);
    body.setRdev(what.rdev);
    body.setTarget(rpc::data(what.target));
    body.setExclusive(what.exclusive);
    body.setOpen(what.open);
  };
  const TimePoint sent = runtime_.clock().now();
  Stamp stamp;
  auto reply = co_await session_.mutate<rpc::method::Make>(std::move(fill), context_.deadline(), &stamp);
  if (!reply) {
    directory_changed(dir, std::nullopt, sent, Granted::kNo);
    co_return fail(std::move(reply.error()));
  }
  struct Answer {
    AttrRecord attr;
    std::vector<Grant> grants;
    Layout layout;
    std::optional<AttrRecord> parent;
    bool created = false;
  };
  CO_TRY(auto answer, decoded("Make", [&] {
           Answer out{decode((*reply)->getAttr()),
                      decode((*reply)->getGrants()),
                      decode((*reply)->getLayout()),
                      {},
                      (*reply)->getCreated()};
           if ((*reply)->hasParentAttr()) out.parent = decode((*reply)->getParentAttr());
           return out;
         }));
  inodes_.take_grants(stamp, answer.grants);
  Made made;
  made.inode = inodes_.get(answer.attr.attr.inode);
  made.attr = answer.attr;
  made.created = answer.created;
  bool held = false;
  {
    std::lock_guard lock(dir->mutex);
    held = inodes_.holds(*dir, sent, granted(answer.grants, dir->id)) && !stamp.replayed;
  }
  const bool cached = change.end(made.inode->id, held ? NameChange::Valid::kYes : NameChange::Valid::kNo);
  directory_changed(dir, answer.parent, sent, granted(answer.grants, dir->id));
  {
    std::lock_guard lock(made.inode->mutex);
    Inode& inode = *made.inode;
    if (S_ISREG(what.mode) && what.open) {
      FileData& file = file_of(context_, inode);
      if (stamp.session == session_.id()) {
        if (inode.lease == Lease::kNone) inode.session = stamp.session;
        ++file.server_opens;  // counted there with or without a grant
      }
      if (inode.session == stamp.session && inode.lease == Lease::kExclusive && !stamp.replayed) {
        made.open = true;
        // An existing file that was ours already is ahead of what the server knows.
        const bool ours =
            !answer.created && inode.have_layout && (!file.clean() || file.reporting || file.told_at >= sent);
        if (!ours && answer.layout.valid()) Leases::adopt(inode, file, answer.attr, answer.layout);
      }
      if (answer.created) file.meta_dirty = true;
    }
    if (answer.created && inodes_.usable(inode)) {
      if (S_ISDIR(what.mode))
        inode.directory().complete = true;  // nobody else can have put anything into it yet
      if (S_ISLNK(what.mode)) inode.target = what.target;
    }
  }
  auto entry =
      entry_from(made.inode, answer.attr, sent, Counted::kYes, granted(answer.grants, made.inode->id));
  if (!entry) {
    auto fresh = co_await refresh_attr(made.inode, Counted::kYes);
    if (!fresh) co_return fail(std::move(fresh.error()));
    entry = std::move(*fresh);
  }
  made.entry = std::move(*entry);
  std::lock_guard lock(dir->mutex);
  made.entry.valid = cached ? std::min(made.entry.valid, inodes_.valid(*dir)) : Duration{0};
  co_return made;
}

FileSystem::Task<Entry> FileSystemImpl::mknod(InodeId parent, std::string name, std::uint32_t mode,
                                              std::uint64_t rdev, Owner owner) {
  Make what{parent, std::move(name), mode, rdev, owner, {}, true, false};
  auto made = co_await make(std::move(what));
  if (!made) co_return fail(std::move(made.error()));
  co_return made->entry;
}

FileSystem::Task<Entry> FileSystemImpl::mkdir(InodeId parent, std::string name, std::uint32_t mode,
                                              Owner owner) {
  Make what{parent, std::move(name), (mode & 07777) | S_IFDIR, 0, owner, {}, true, false};
  auto made = co_await make(std::move(what));
  if (!made) co_return fail(std::move(made.error()));
  co_return made->entry;
}

FileSystem::Task<Entry> FileSystemImpl::symlink(InodeId parent, std::string name, std::string target,
                                                Owner owner) {
  Make what{parent, std::move(name), S_IFLNK | 0777, 0, owner, std::move(target), true, false};
  auto made = co_await make(std::move(what));
  if (!made) co_return fail(std::move(made.error()));
  co_return made->entry;
}

// --- removing, renaming, linking ---

std::uint64_t FileSystemImpl::known_size(const InodeRef& inode) {
  if (!inode) return 0;
  std::lock_guard lock(inode->mutex);
  return inode->file && inode->have_attr ? inode->size() : 0;
}

void FileSystemImpl::name_lost(const InodeRef& ref, Kept kept) {
  std::unique_lock lock(ref->mutex);
  Inode& inode = *ref;
  const bool last = inode.have_attr && (S_ISDIR(inode.attr.attr.mode) || inode.attr.attr.nlink <= 1);
  // Link count and ctime are the server's to say; it does not know a directory any more.
  if (!last || inode.file) inode.have_attr = false;
  if (!last) return;
  inode.attr.attr.nlink = 0;
  if (!inode.file) return;
  if (kept == Kept::kNo) {
    inode.file->unlinked = true;
    close_if_unreachable(ref);
    return;
  }
  inode.file->kept = true;
  if (inode.file->handles > 0) return;
  inode.file->idle_since = runtime_.clock().now() - kIdleClose;
  lock.unlock();
  write_back_.save_soon(ref);
}

// The server removes an inode without names when its last open is reported closed. While the kernel knows it,
// a process may be between looking the name up and opening what it found: bytes and open stay until it
// forgets. Whether it is open on other hosts only the server knows: until it says that the inode went, what
// is dirty may have to be stored for them.
void FileSystemImpl::close_if_unreachable(const InodeRef& inode) {
  if (inode->unreachable()) reporter_.add(inode);
}

rpc::Task<Result<>> FileSystemImpl::remove_name(InodeId parent, std::string name, bool directory,
                                                Owner owner) {
  InodeRef dir = inodes_.get(parent);
  InodeId known;
  {
    std::lock_guard lock(dir->mutex);
    auto& entries = dir->directory().entries;
    if (auto it = entries.find(name); it != entries.end()) known = it->second;
  }
  const InodeRef child = known.valid() ? inodes_.find(known) : nullptr;
  NameChange change(dir, name);
  std::function<void(schema::RemoveRequest::Builder)> fill = [&](schema::RemoveRequest::Builder body) {
    body.setParent(parent.value());
    body.setName(rpc::data(name));
    body.setDirectory(directory);
    body.setUid(owner.uid);
    body.setSize(known_size(child));
  };
  const TimePoint sent = runtime_.clock().now();
  auto reply = co_await session_.mutate<rpc::method::Remove>(std::move(fill), context_.deadline());
  if (!reply) {
    directory_changed(dir, std::nullopt, sent, Granted::kNo);
    co_return fail(std::move(reply.error()));
  }
  CO_TRY(auto attr, decoded("Remove", [&]() -> std::optional<AttrRecord> {
           if (!(*reply)->hasParent()) return std::nullopt;
           return decode((*reply)->getParent());
         }));
  bool held = false;
  {
    std::lock_guard lock(dir->mutex);
    held = inodes_.holds(*dir, sent, Granted::kNo);
  }
  change.end(InodeId{}, held ? NameChange::Valid::kYes : NameChange::Valid::kNo);
  directory_changed(dir, attr, sent, Granted::kNo);
  if (child) name_lost(child, (*reply)->getKept() ? Kept::kYes : Kept::kNo);
  co_return Result<>{};
}

FileSystem::Task<void> FileSystemImpl::unlink(InodeId parent, std::string name, Owner owner) {
  auto removed = co_await remove_name(parent, std::move(name), false, owner);
  co_return removed;
}

FileSystem::Task<void> FileSystemImpl::rmdir(InodeId parent, std::string name) {
  auto removed = co_await remove_name(parent, std::move(name), true, Owner{});
  co_return removed;
}

FileSystem::Task<void> FileSystemImpl::rename(InodeId parent, std::string name, InodeId new_parent,
                                              std::string new_name, std::uint32_t flags, Owner owner) {
  constexpr std::uint32_t kExchange = 2, kWhiteout = 4;
  InodeRef from = inodes_.get(parent), to = inodes_.get(new_parent);
  if (from == to && name == new_name) co_return Result<>{};
  const auto known = [&](const InodeRef& dir, const std::string& of) {
    std::lock_guard lock(dir->mutex);
    auto& entries = dir->directory().entries;
    auto it = entries.find(of);
    return it == entries.end() ? InodeId{} : it->second;
  };
  const InodeId moved = known(from, name), replaced = known(to, new_name);
  NameChange old_change(from, name), new_change(to, new_name);
  std::function<void(schema::RenameRequest::Builder)> fill = [&](schema::RenameRequest::Builder body) {
    body.setParent(parent.value());
    body.setName(rpc::data(name));
    body.setNewParent(new_parent.value());
    body.setNewName(rpc::data(new_name));
    body.setFlags(flags);
    body.setUid(owner.uid);
    body.setGid(owner.gid);
    body.setSize(known_size(replaced.valid() && replaced != moved ? inodes_.find(replaced) : nullptr));
  };
  const TimePoint sent = runtime_.clock().now();
  auto reply = co_await session_.mutate<rpc::method::Rename>(std::move(fill), context_.deadline());
  if (!reply) {
    directory_changed(from, std::nullopt, sent, Granted::kNo);
    directory_changed(to, std::nullopt, sent, Granted::kNo);
    co_return fail(std::move(reply.error()));
  }
  std::optional<AttrRecord> from_attr, to_attr;
  CO_TRYV(decoded("Rename", [&] {
    if ((*reply)->hasParent()) from_attr = decode((*reply)->getParent());
    if ((*reply)->hasNewParent()) to_attr = decode((*reply)->getNewParent());
  }));
  const auto valid = [&](const InodeRef& dir) {
    std::lock_guard lock(dir->mutex);
    return inodes_.holds(*dir, sent, Granted::kNo) ? NameChange::Valid::kYes : NameChange::Valid::kNo;
  };
  const bool exchange = (flags & kExchange) != 0;
  // An inode that was not cached is not known by number: its name is looked up again.
  const auto leads_to = [](InodeId id) { return id.valid() ? std::optional(id) : std::nullopt; };
  std::optional<InodeId> left_behind = InodeId{};
  if (moved.valid() && moved == replaced) left_behind = moved;  // two names of one file: both stay
  if (exchange) left_behind = leads_to(replaced);
  if ((flags & kWhiteout) != 0) left_behind.reset();
  old_change.end(left_behind, valid(from));
  const NameChange::Valid to_valid = valid(to);
  new_change.end(leads_to(moved), to_valid);
  // The kernel moves the entry with the time for which it was valid in the other directory.
  if (to_valid == NameChange::Valid::kNo && invalidations_.has_sink()) {
    Invalidation moved_name;
    moved_name.inode = new_parent;
    moved_name.names = {new_name};
    invalidations_.push(std::move(moved_name));
  }
  if (from_attr && from_attr->attr.inode == from->id)
    directory_changed(from, from_attr, sent, Granted::kNo);
  else
    directory_changed(from, std::nullopt, sent, Granted::kNo);
  if (from != to || to_attr)
    directory_changed(to, to_attr ? to_attr : from == to ? from_attr : std::nullopt, sent, Granted::kNo);
  if (InodeRef inode = moved.valid() ? inodes_.find(moved) : nullptr) {
    std::lock_guard lock(inode->mutex);
    if (inode->file && inodes_.usable(*inode, Lease::kExclusive)) {
      inode->attr.attr.ctime_ns = runtime_.clock().wall_ns();  // its times are ours
      inode->file->report_times = true;
      write_back_.queue(inode);
    } else {
      inode->have_attr = false;  // ctime; a directory's parent
    }
  }
  if (InodeRef inode = replaced.valid() && replaced != moved ? inodes_.find(replaced) : nullptr) {
    if (exchange) {
      std::lock_guard lock(inode->mutex);
      inode->have_attr = false;
    } else {
      name_lost(inode, (*reply)->getKept() ? Kept::kYes : Kept::kNo);
    }
  }
  co_return Result<>{};
}

FileSystem::Task<Entry> FileSystemImpl::link(InodeId id, InodeId parent, std::string name) {
  InodeRef dir = inodes_.get(parent);
  NameChange change(dir, name);
  std::function<void(schema::LinkRequest::Builder)> fill = [&](schema::LinkRequest::Builder body) {
    body.setInode(id.value());
    body.setParent(parent.value());
    body.setName(rpc::data(name));
  };
  const TimePoint sent = runtime_.clock().now();
  Stamp stamp;
  auto reply = co_await session_.mutate<rpc::method::Link>(std::move(fill), context_.deadline(), &stamp);
  if (!reply) {
    directory_changed(dir, std::nullopt, sent, Granted::kNo);
    co_return fail(std::move(reply.error()));
  }
  std::optional<AttrRecord> parent_attr;
  CO_TRY(auto answer, decoded("Link", [&] {
           if ((*reply)->hasParentAttr()) parent_attr = decode((*reply)->getParentAttr());
           return std::pair(decode((*reply)->getAttr()), decode((*reply)->getGrants()));
         }));
  inodes_.take_grants(stamp, answer.second);
  bool held = false;
  Duration valid{0};  // of the name
  {
    std::lock_guard lock(dir->mutex);
    held = inodes_.holds(*dir, sent, granted(answer.second, dir->id)) && !stamp.replayed;
    if (held) valid = inodes_.valid(*dir);
  }
  change.end(id, held ? NameChange::Valid::kYes : NameChange::Valid::kNo);
  directory_changed(dir, parent_attr, sent, granted(answer.second, dir->id));
  InodeRef inode = inodes_.get(id);
  auto entry = entry_from(inode, answer.first, sent, Counted::kYes, granted(answer.second, inode->id));
  if (!entry) {
    auto fresh = co_await refresh_attr(inode, Counted::kYes);
    if (!fresh) co_return fresh;
    entry = std::move(*fresh);
  }
  entry->valid = std::min(entry->valid, valid);
  co_return std::move(*entry);
}

}  // namespace cairn::client
