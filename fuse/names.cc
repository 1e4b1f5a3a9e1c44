// Handlers of names: lookup, forget, and what makes, moves and removes directory entries.
#include <linux/fs.h>
#include <sys/stat.h>

#include <cstring>
#include <optional>
#include <string>

#include "fuse/frontend.h"

namespace cairn::fuse {
namespace {

// Replies the entry, a cached "no such name", or the error.
void reply_lookup(fuse_req_t req, InodeId parent, const Result<Entry>& found, const NegativeEntry& negative) {
  if (found) return reply_entry(req, *found);
  if (found.error().code() == Code::kNotFound && negative.valid > Duration::zero()) {
    fuse_entry_param none{};  // inode 0: the kernel may remember that there is none
    none.entry_timeout = to_seconds(negative.valid, frontend(req).cache.attributes_max);
    fuse_reply_entry(req, &none);
    return;
  }
  reply_error(req, {"lookup", parent}, found.error());
}

FileSystem::Task<Entry> parent_of(FileSystem& files, InodeId dir) {
  auto listing = files.readdir(dir, 0, 1, false);
  CO_TRY(DirPage page, co_await std::move(listing));
  auto attr = files.getattr(page.parent);
  co_return co_await std::move(attr);
}

void handle_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  FileSystem& files = frontend(req).files;
  const InodeId dir(parent);
  auto finish = [dir](fuse_req_t req, Result<Entry> found) {
    if (req != nullptr) reply_lookup(req, dir, found, {});
  };
  // A server of NFS asks for inodes it has handles of (FUSE_CAP_EXPORT_SUPPORT): "." is the inode itself.
  if (std::strcmp(name, ".") == 0)
    return start<Entry>(req, Kind::kRead, "lookup", files.getattr(dir), finish);
  if (std::strcmp(name, "..") == 0)
    return start<Entry>(req, Kind::kRead, "lookup", parent_of(files, dir), finish);

  NegativeEntry negative;
  if (auto found = files.try_lookup(dir, name, &negative)) return reply_lookup(req, dir, *found, negative);
  auto later = std::make_shared<NegativeEntry>();
  start<Entry>(req, Kind::kRead, "lookup", files.lookup(dir, name, later.get()),
               [dir, later, &files](fuse_req_t req, Result<Entry> found) {
                 if (req != nullptr) return reply_lookup(req, dir, found, *later);
                 if (found) files.forget(found->attr.inode, 1);
               });
}

void handle_forget(fuse_req_t req, fuse_ino_t ino, std::uint64_t count) {
  frontend(req).files.forget(InodeId(ino), count);
  fuse_reply_none(req);
}

void handle_forget_multi(fuse_req_t req, std::size_t count, fuse_forget_data* forgets) {
  FileSystem& files = frontend(req).files;
  for (std::size_t i = 0; i < count; ++i) files.forget(InodeId(forgets[i].ino), forgets[i].nlookup);
  fuse_reply_none(req);
}

// Completion of everything that makes a name.
auto finish_entry(std::string_view op, InodeId parent, FileSystem& files) {
  return [op, parent, &files](fuse_req_t req, Result<Entry> made) {
    if (req == nullptr) {
      if (made) files.forget(made->attr.inode, 1);
    } else if (made) {
      reply_entry(req, *made);
    } else {
      reply_error(req, {op, parent}, made.error());
    }
  };
}

// Completion of everything that returns nothing.
auto finish_empty(std::string_view op, InodeId inode) {
  return [op, inode](fuse_req_t req, Result<> done) {
    if (req == nullptr) return;
    if (done) {
      fuse_reply_err(req, 0);
    } else {
      reply_error(req, {op, inode}, done.error());
    }
  };
}

void handle_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  FileSystem& files = frontend(req).files;
  const InodeId dir(parent);
  start<Entry>(req, Kind::kChange, "mknod", files.mknod(dir, name, mode, rdev, owner_of(req)),
               finish_entry("mknod", dir, files));
}

void handle_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  FileSystem& files = frontend(req).files;
  const InodeId dir(parent);
  start<Entry>(req, Kind::kChange, "mkdir", files.mkdir(dir, name, S_IFDIR | (mode & 07777), owner_of(req)),
               finish_entry("mkdir", dir, files));
}

void handle_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  FileSystem& files = frontend(req).files;
  const InodeId dir(parent);
  start<Entry>(req, Kind::kChange, "symlink", files.symlink(dir, name, target, owner_of(req)),
               finish_entry("symlink", dir, files));
}

void handle_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
  FileSystem& files = frontend(req).files;
  const InodeId dir(parent);
  start<Entry>(req, Kind::kChange, "link", files.link(InodeId(ino), dir, name),
               [finish = finish_entry("link", dir, files)](fuse_req_t req, Result<Entry> linked) {
                 if (linked) linked->valid = Duration{0};  // see setattr
                 finish(req, std::move(linked));
               });
}

void handle_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  const InodeId dir(parent);
  start<void>(req, Kind::kChange, "unlink", frontend(req).files.unlink(dir, name, owner_of(req)),
              finish_empty("unlink", dir));
}

void handle_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  const InodeId dir(parent);
  start<void>(req, Kind::kChange, "rmdir", frontend(req).files.rmdir(dir, name), finish_empty("rmdir", dir));
}

void handle_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
                   const char* new_name, unsigned flags) {
  if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  const InodeId dir(parent);
  start<void>(req, Kind::kChange, "rename",
              frontend(req).files.rename(dir, name, InodeId(new_parent), new_name, flags, owner_of(req)),
              finish_empty("rename", dir));
}

void handle_readlink(fuse_req_t req, fuse_ino_t ino) {
  const InodeId inode(ino);
  start<std::string>(req, Kind::kRead, "readlink", frontend(req).files.readlink(inode),
                     [inode](fuse_req_t req, Result<std::string> target) {
                       if (req == nullptr) return;
                       if (target) {
                         fuse_reply_readlink(req, target->c_str());
                       } else {
                         reply_error(req, {"readlink", inode}, target.error());
                       }
                     });
}

}  // namespace

void add_name_handlers(fuse_lowlevel_ops& ops) {
  ops.lookup = handle_lookup;
  ops.forget = handle_forget;
  ops.forget_multi = handle_forget_multi;
  ops.mknod = handle_mknod;
  ops.mkdir = handle_mkdir;
  ops.symlink = handle_symlink;
  ops.link = handle_link;
  ops.unlink = handle_unlink;
  ops.rmdir = handle_rmdir;
  ops.rename = handle_rename;
  ops.readlink = handle_readlink;
}

}  // namespace cairn::fuse
