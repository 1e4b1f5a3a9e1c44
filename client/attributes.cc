// Attributes of inodes: sizes, modes, times, symlink targets, extended attributes; and statfs.
#include <sys/stat.h>

#include "client/file_system_impl.h"

namespace cairn::client {
namespace {

constexpr const char* kAccessAcl = "system.posix_acl_access";

// Only what a report tells; an owner may be named that is the owner already (tar sets everything).
bool changes_mode_and_times_only(const Attr& now, const SetAttr& change) {
  constexpr std::uint32_t kOurs = kSetMode | kSetAtime | kSetMtime | kSetAtimeNow | kSetMtimeNow;
  if ((change.valid & ~(kOurs | kSetUid | kSetGid)) != 0) return false;
  if ((change.valid & kSetUid) && change.attr.uid != now.uid) return false;
  if ((change.valid & kSetGid) && change.attr.gid != now.gid) return false;
  // chown takes set-id bits away, also when the owner stays.
  const bool owner = (change.valid & (kSetUid | kSetGid)) != 0;
  return !owner || (now.mode & (S_ISUID | S_ISGID)) == 0;
}

}  // namespace

std::optional<Result<Entry>> FileSystemImpl::try_getattr(InodeId id) {
  InodeRef inode = inodes_.find(id);
  if (!inode) return std::nullopt;
  std::lock_guard lock(inode->mutex);
  if (!inode->have_attr || !inodes_.usable(*inode) || inode->recalling || inode->dropping != 0)
    return std::nullopt;
  return entry_of(*inode, Counted::kNo);
}

// Until the kernel has dropped what it was told to drop.
rpc::Task<Result<>> FileSystemImpl::dropped(InodeRef inode, Deadline deadline) {
  for (;;) {
    std::shared_ptr<rpc::Event> dropped;
    {
      std::lock_guard lock(inode->mutex);
      if (inode->dropping == 0) co_return Result<>{};
      dropped = inode->dropped.next(runtime_);
    }
    auto waited = co_await dropped->wait(deadline);
    if (!waited) co_return fail(waited.error().with("waiting for the kernel to drop pages"));
  }
}

rpc::Task<Result<Entry>> FileSystemImpl::refresh_attr(InodeRef inode, Counted counted) {
  const Deadline deadline = context_.deadline();
  RequestMark mark(inode);
  std::function<void(schema::GetAttrRequest::Builder, std::uint64_t)> fill =
      [id = inode->id](schema::GetAttrRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
      };
  for (;;) {
    CO_TRYV(co_await reporter_.quiet(inode, deadline));
    const TimePoint sent = runtime_.clock().now();
    Stamp stamp;
    auto copy = fill;
    auto reply = co_await session_.query<rpc::method::GetAttr>(std::move(copy), deadline, &stamp);
    if (!reply) co_return fail(std::move(reply.error()));
    CO_TRY(auto answer, decoded("GetAttr", [&] {
             return std::pair(decode((*reply)->getAttr()), decode((*reply)->getGrants()));
           }));
    inodes_.take_grants(stamp, answer.second);
    if (auto entry = entry_from(inode, answer.first, sent, counted, granted(answer.second, inode->id)))
      co_return std::move(*entry);
    if (deadline.passed(runtime_.clock()))
      co_return fail(Code::kTimeout, "inode " + to_string(inode->id) + " changed each time it was asked for");
  }
}

FileSystem::Task<Entry> FileSystemImpl::getattr(InodeId id) {
  if (auto known = try_getattr(id)) co_return std::move(*known);
  InodeRef inode = inodes_.get(id);
  CO_TRYV(co_await dropped(inode, context_.deadline()));
  auto entry = co_await refresh_attr(inode, Counted::kNo);
  if (entry || entry.error().code() != Code::kNotFound) co_return entry;
  // A directory that another host removed, and a process here has open or works in: as on a local file system
  // it is there, without names. (ESTALE would also be the answer to each call with a path below it.)
  std::lock_guard lock(inode->mutex);
  if (inode->lookups == 0 || !S_ISDIR(inode->attr.attr.mode)) co_return entry;
  Entry removed{inode->attr.attr};
  removed.attr.nlink = 0;
  co_return removed;
}

// Times and permission bits of a file held exclusively are ours: they go with the next report.
std::optional<Result<Entry>> FileSystemImpl::try_setattr(InodeId id, const SetAttr& change) {
  InodeRef inode = inodes_.find(id);
  if (!inode) return std::nullopt;
  // An access control list, if there may be one, changes with the mode: that is the server's to do.
  const bool change_mode = (change.valid & kSetMode) != 0;
  // In a report the time 0 means "unchanged".
  const bool tells_nothing = ((change.valid & kSetAtime) && change.attr.atime_ns == 0) ||
                             ((change.valid & kSetMtime) && change.attr.mtime_ns == 0);
  std::lock_guard lock(inode->mutex);
  if (!inode->file || !inode->have_attr || !inode->have_layout || inode->recalling ||
      inode->file->blocked != 0 || !inodes_.usable(*inode, Lease::kExclusive) ||
      (change_mode && !inode->no_xattrs) || tells_nothing ||
      !changes_mode_and_times_only(inode->attr.attr, change)) {
    return std::nullopt;
  }
  Attr& attr = inode->attr.attr;
  const std::int64_t now = runtime_.clock().wall_ns();
  if (change.valid & (kSetAtime | kSetAtimeNow)) {
    attr.atime_ns = change.valid & kSetAtimeNow ? now : change.attr.atime_ns;
    inode->file->report_atime = true;
    inode->file->accessed = false;
  }
  if (change.valid & (kSetMtime | kSetMtimeNow)) {
    attr.mtime_ns = change.valid & kSetMtimeNow ? now : change.attr.mtime_ns;
  }
  if ((change.valid & kSetMode) && (change.attr.mode & 07777) != (attr.mode & 07777)) {
    attr.mode = (attr.mode & S_IFMT) | (change.attr.mode & 07777);
    inode->file->report_mode = true;
  }
  inode->file->report_times = true;
  attr.ctime_ns = now;
  write_back_.queue(inode);
  return entry_of(*inode, Counted::kNo);
}

rpc::Task<Result<>> FileSystemImpl::report_mode(InodeRef inode) {
  bool waits = false;
  {
    std::lock_guard lock(inode->mutex);
    waits = inode->file && inode->file->report_mode;
  }
  if (waits) CO_TRYV(co_await reporter_.report(inode, Durable::kNo, context_.deadline()));
  co_return co_await reporter_.quiet(inode, context_.deadline());
}

FileSystem::Task<Entry> FileSystemImpl::setattr(InodeId id, SetAttr change) {
  if (auto done = try_setattr(id, change)) co_return std::move(*done);
  InodeRef inode = inodes_.get(id);
  const TimePoint sent = runtime_.clock().now();
  if (change.valid & kSetSize) {
    auto set = co_await set_size(context_, leases_, write_back_, reporter_, inode, change, Shrink::kYes,
                                 context_.deadline());
    if (!set) co_return fail(std::move(set.error()));
    if (auto entry = entry_from(inode, *set, sent, Counted::kNo, Granted::kNo)) co_return std::move(*entry);
    auto entry = co_await refresh_attr(inode, Counted::kNo);
    co_return entry;
  }
  // A report on its way carries older times: it must not arrive after this. Permission bits go first: a new
  // owner takes some of them away.
  CO_TRYV(co_await report_mode(inode));
  {
    std::lock_guard lock(inode->mutex);
    if (inode->file && change.valid & (kSetMtime | kSetMtimeNow)) inode->file->report_times = false;
    if (inode->file && change.valid & (kSetAtime | kSetAtimeNow))
      inode->file->report_atime = inode->file->accessed = false;
  }
  RequestMark mark(inode);
  std::function<void(schema::SetAttrRequest::Builder)> fill = [&](schema::SetAttrRequest::Builder body) {
    body.setInode(id.value());
    body.setValid(change.valid);
    encode(change.attr, body.initAttr());
  };
  auto reply = co_await session_.mutate<rpc::method::SetAttr>(std::move(fill), context_.deadline());
  if (!reply) {
    std::lock_guard lock(inode->mutex);
    inode->have_attr = false;
    co_return fail(std::move(reply.error()));
  }
  CO_TRY(auto attr, decoded("SetAttr", [&] { return decode((*reply)->getAttr()); }));
  {
    std::lock_guard lock(inode->mutex);
    if (inode->file) inode->file->meta_dirty = true;
    if (change.valid & kSetMode) {  // the access control list's mask went along
      inode->xattrs.erase(kAccessAcl);
      if (!inode->no_xattrs) ++inode->xattr_changes;
    }
  }
  if (auto entry = entry_from(inode, attr, sent, Counted::kNo, Granted::kNo)) co_return std::move(*entry);
  auto entry = co_await refresh_attr(inode, Counted::kNo);
  co_return entry;
}

FileSystem::Task<std::string> FileSystemImpl::readlink(InodeId id) {
  InodeRef inode = inodes_.get(id);
  {
    std::lock_guard lock(inode->mutex);
    if (inode->target) co_return *inode->target;  // a link's target never changes
  }
  std::function<void(schema::InodeRequest::Builder, std::uint64_t)> fill =
      [id](schema::InodeRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
      };
  auto reply = co_await session_.query<rpc::method::ReadLink>(std::move(fill), context_.deadline());
  if (!reply) co_return fail(std::move(reply.error()));
  CO_TRY(auto target, decoded("ReadLink", [&] { return std::string(rpc::text((*reply)->getTarget())); }));
  std::lock_guard lock(inode->mutex);
  inode->target = target;
  co_return target;
}

FileSystem::Task<StatFs> FileSystemImpl::statfs(InodeId id) {
  std::function<void(schema::StatFsRequest::Builder, std::uint64_t)> fill =
      [id](schema::StatFsRequest::Builder body, std::uint64_t) { body.setInode(id.value()); };
  auto reply = co_await session_.query<rpc::method::StatFs>(std::move(fill), context_.deadline());
  if (!reply) co_return fail(std::move(reply.error()));
  co_return StatFs{(*reply)->getTotal(), (*reply)->getAvailable(), (*reply)->getFiles(),
                   (*reply)->getFilesMax()};
}

// --- extended attributes ---

std::optional<Result<std::string>> FileSystemImpl::try_getxattr(InodeId id, std::string_view name) {
  InodeRef inode = inodes_.find(id);
  if (!inode) return std::nullopt;
  std::lock_guard lock(inode->mutex);
  if (!inodes_.usable(*inode) || inode->recalling) return std::nullopt;
  auto it = inode->xattrs.find(name);
  if (it == inode->xattrs.end()) {
    if (!inode->no_xattrs) return std::nullopt;
    return fail(Code::kNoAttribute, "inode " + to_string(id) + " has no such attribute");
  }
  if (!it->second) return fail(Code::kNoAttribute, "inode " + to_string(id) + " has no such attribute");
  return *it->second;
}

FileSystem::Task<std::string> FileSystemImpl::getxattr(InodeId id, std::string name) {
  if (auto known = try_getxattr(id, name)) co_return std::move(*known);
  InodeRef inode = inodes_.get(id);
  std::uint64_t serial = 0;
  {
    std::lock_guard lock(inode->mutex);
    serial = inode->lease_serial + inode->xattr_changes;
  }
  std::function<void(schema::GetXattrRequest::Builder, std::uint64_t)> fill =
      [&](schema::GetXattrRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
        body.setName(rpc::data(name));
      };
  const TimePoint sent = runtime_.clock().now();
  auto reply = co_await session_.query<rpc::method::GetXattr>(std::move(fill), context_.deadline());
  if (!reply && reply.error().code() != Code::kNoAttribute) co_return fail(std::move(reply.error()));
  std::optional<std::string> value;
  if (reply) {
    CO_TRY(value, decoded("GetXattr", [&] { return std::string(rpc::text((*reply)->getValue())); }));
  }
  {
    std::lock_guard lock(inode->mutex);
    if (inode->lease_serial + inode->xattr_changes == serial && !inode->recalling &&
        inodes_.holds(*inode, sent, Granted::kNo))
      inode->xattrs.insert_or_assign(name, value);
  }
  if (!value) co_return fail(std::move(reply.error()));
  co_return std::move(*value);
}

FileSystem::Task<std::vector<std::string>> FileSystemImpl::listxattr(InodeId id) {
  std::function<void(schema::InodeRequest::Builder, std::uint64_t)> fill =
      [id](schema::InodeRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setInode(id.value());
      };
  auto reply = co_await session_.query<rpc::method::ListXattr>(std::move(fill), context_.deadline());
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded("ListXattr", [&] {
    std::vector<std::string> names;
    for (auto name : (*reply)->getNames()) names.emplace_back(rpc::text(name));
    return names;
  });
}

FileSystem::Task<void> FileSystemImpl::setxattr(InodeId id, std::string name, std::string value,
                                                std::uint32_t flags) {
  InodeRef inode = inodes_.get(id);
  const auto uncertain = [&] {
    std::lock_guard lock(inode->mutex);
    inode->no_xattrs = false;
    inode->xattrs.clear();
    inode->have_attr = false;  // ctime; of an access control list also the mode
    ++inode->xattr_changes;    // answers on their way are from before
  };
  uncertain();
  // A change of permission bits that is not reported yet came before this one.
  if (name == kAccessAcl) CO_TRYV(co_await report_mode(inode));
  std::function<void(schema::SetXattrRequest::Builder)> fill = [&](schema::SetXattrRequest::Builder body) {
    body.setInode(id.value());
    body.setName(rpc::data(name));
    body.setValue(rpc::data(value));
    body.setFlags(flags);
  };
  auto reply = co_await session_.mutate<rpc::method::SetXattr>(std::move(fill), context_.deadline());
  uncertain();
  if (!reply) co_return fail(std::move(reply.error()));
  co_return Result<>{};
}

FileSystem::Task<void> FileSystemImpl::removexattr(InodeId id, std::string name) {
  InodeRef inode = inodes_.get(id);
  const auto uncertain = [&] {
    std::lock_guard lock(inode->mutex);
    inode->no_xattrs = false;
    inode->xattrs.clear();
    inode->have_attr = false;
    ++inode->xattr_changes;
  };
  uncertain();
  std::function<void(schema::RemoveXattrRequest::Builder)> fill =
      [&](schema::RemoveXattrRequest::Builder body) {
        body.setInode(id.value());
        body.setName(rpc::data(name));
      };
  auto reply = co_await session_.mutate<rpc::method::RemoveXattr>(std::move(fill), context_.deadline());
  uncertain();
  if (!reply) co_return fail(std::move(reply.error()));
  co_return Result<>{};
}

}  // namespace cairn::client
