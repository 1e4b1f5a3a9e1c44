// Handlers of attributes, extended attributes and statfs.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fuse/frontend.h"

namespace cairn::fuse {
namespace {

void handle_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  FileSystem& files = frontend(req).files;
  const InodeId inode(ino);
  auto finish = [inode](fuse_req_t req, Result<Entry> entry) {
    if (req == nullptr) return;
    if (entry) {
      reply_attr(req, *entry);
    } else {
      reply_error(req, {"getattr", inode, RangeMeans::kValue, Missing::kInode}, entry.error());
    }
  };
  if (auto known = files.try_getattr(inode)) return finish(req, std::move(*known));
  start<Entry>(req, Kind::kRead, "getattr", files.getattr(inode), finish);
}

// The kernel sends ATTR_KILL_SUID and the like as an ordinary change of mode: FUSE_CAP_HANDLE_KILLPRIV is
// off.
void handle_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* attr, int to_set, fuse_file_info*) {
  FileSystem& files = frontend(req).files;
  const InodeId inode(ino);
  const SetAttr change = to_set_attr(*attr, to_set);
  auto finish = [inode](fuse_req_t req, Result<Entry> entry) {
    if (req == nullptr) return;
    if (entry) {
      // Not to be kept: unlike those of GETATTR, the kernel takes these also when it was told meanwhile that
      // they are out of date.
      entry->valid = Duration{0};
      reply_attr(req, *entry);
    } else {
      reply_error(req, {"setattr", inode, RangeMeans::kOffset, Missing::kInode}, entry.error());
    }
  };
  if (auto done = files.try_setattr(inode, change)) return finish(req, std::move(*done));
  start<Entry>(req, Kind::kChange, "setattr", files.setattr(inode, change), finish);
}

void handle_statfs(fuse_req_t req, fuse_ino_t ino) {
  const InodeId inode(ino);
  start<StatFs>(req, Kind::kRead, "statfs", frontend(req).files.statfs(inode),
                [inode](fuse_req_t req, Result<StatFs> space) {
                  if (req == nullptr) return;
                  if (space) {
                    const struct statvfs out = to_statvfs(*space);
                    fuse_reply_statfs(req, &out);
                  } else {
                    reply_error(req, {"statfs", inode}, space.error());
                  }
                });
}

// --- extended attributes ---

// `size` 0 asks how long the value is.
void reply_value(fuse_req_t req, const std::string& value, std::size_t size) {
  if (size == 0) {
    fuse_reply_xattr(req, value.size());
  } else if (value.size() > size) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, value.data(), value.size());
  }
}

void handle_getxattr(fuse_req_t req, fuse_ino_t ino, const char* name, std::size_t size) {
  FileSystem& files = frontend(req).files;
  const InodeId inode(ino);
  auto finish = [inode, size](fuse_req_t req, Result<std::string> value) {
    if (req == nullptr) return;
    if (value) {
      reply_value(req, *value, size);
    } else {
      reply_error(req, {"getxattr", inode}, value.error());
    }
  };
  if (auto known = files.try_getxattr(inode, name)) return finish(req, std::move(*known));
  start<std::string>(req, Kind::kRead, "getxattr", files.getxattr(inode, name), finish);
}

void handle_listxattr(fuse_req_t req, fuse_ino_t ino, std::size_t size) {
  const InodeId inode(ino);
  // The kernel hides the values of "trusted." from others, but leaves the names to the file system.
  const bool trusted = fuse_req_ctx(req)->uid == 0;
  auto finish = [inode, size, trusted](fuse_req_t req, Result<std::vector<std::string>> names) {
    if (req == nullptr) return;
    if (!names) return reply_error(req, {"listxattr", inode}, names.error());
    std::string all;
    for (const auto& name : *names) {
      if (trusted || !name.starts_with("trusted.")) all.append(name).push_back('\0');
    }
    reply_value(req, all, size);
  };
  start<std::vector<std::string>>(req, Kind::kRead, "listxattr", frontend(req).files.listxattr(inode),
                                  finish);
}

auto finish_xattr(std::string_view op, InodeId inode) {
  return [op, inode](fuse_req_t req, Result<> done) {
    if (req == nullptr) return;
    if (done) {
      fuse_reply_err(req, 0);
    } else {
      reply_error(req, {op, inode}, done.error());
    }
  };
}

constexpr std::string_view kAccessAcl = "system.posix_acl_access";

// As on local file systems: a name outside these belongs to nobody.
bool has_namespace(std::string_view name) {
  return name.starts_with("user.") || name.starts_with("trusted.") || name.starts_with("security.") ||
         name == kAccessAcl || name == "system.posix_acl_default";
}

// The groups of a caller who may not keep the set-group-id bit of a file of another group; empty: root may.
std::vector<gid_t> groups_of(fuse_req_t req) {
  const fuse_ctx* caller = fuse_req_ctx(req);
  if (caller->uid == 0) return {};
  std::vector<gid_t> groups(64);
  for (;;) {
    const int count = fuse_req_getgroups(req, static_cast<int>(groups.size()), groups.data());
    const bool all = count <= static_cast<int>(groups.size());
    groups.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
    if (all) break;
  }
  groups.push_back(caller->gid);
  return groups;
}

// As chmod: setting the mode by way of a list takes the set-group-id bit from who is not of the file's group.
// (The kernel would say so by FUSE_SETXATTR_ACL_KILL_SGID, which libfuse 3.14 does not know.)
FileSystem::Task<void> set_access_acl(FileSystem& files, InodeId inode, std::string value,
                                      std::uint32_t flags, std::vector<gid_t> groups) {
  constexpr std::uint32_t kClearSetgid = 4;
  if (!groups.empty()) {
    auto getting = files.getattr(inode);
    CO_TRY(const Entry entry, co_await std::move(getting));
    const bool of_group = std::find(groups.begin(), groups.end(), entry.attr.gid) != groups.end();
    if (!of_group) flags |= kClearSetgid;
  }
  auto setting = files.setxattr(inode, std::string(kAccessAcl), std::move(value), flags);
  co_return co_await std::move(setting);
}

void handle_setxattr(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value, std::size_t size,
                     int flags) {
  if (!has_namespace(name)) {
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  const InodeId inode(ino);
  if (name == kAccessAcl) {
    start<void>(req, Kind::kChange, "setxattr",
                set_access_acl(frontend(req).files, inode, std::string(value, size),
                               static_cast<std::uint32_t>(flags), groups_of(req)),
                finish_xattr("setxattr", inode));
    return;
  }
  start<void>(
      req, Kind::kChange, "setxattr",
      frontend(req).files.setxattr(inode, name, std::string(value, size), static_cast<std::uint32_t>(flags)),
      finish_xattr("setxattr", inode));
}

void handle_removexattr(fuse_req_t req, fuse_ino_t ino, const char* name) {
  const InodeId inode(ino);
  start<void>(req, Kind::kChange, "removexattr", frontend(req).files.removexattr(inode, name),
              finish_xattr("removexattr", inode));
}

}  // namespace

void add_attribute_handlers(fuse_lowlevel_ops& ops) {
  ops.getattr = handle_getattr;
  ops.setattr = handle_setattr;
  ops.statfs = handle_statfs;
  ops.getxattr = handle_getxattr;
  ops.listxattr = handle_listxattr;
  ops.setxattr = handle_setxattr;
  ops.removexattr = handle_removexattr;
}

}  // namespace cairn::fuse
