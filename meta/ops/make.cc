#include "meta/keys.h"
#include "meta/ops/acl.h"
#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

namespace {

constexpr std::size_t kTargetMax = 4095;

Result<> check_type(const MakeArgs& args) {
  switch (args.mode & S_IFMT) {
    case S_IFLNK:
      if (args.target.empty()) return fail(Code::kNotFound, "a symbolic link needs a target");
      if (args.target.size() > kTargetMax)
        return fail(Code::kNameTooLong, "a link's target may have 4095 bytes");
      return {};
    case S_IFREG:
    case S_IFDIR:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return {};
    default:
      return fail(Code::kInvalidArgument, "no such file type: mode " + std::to_string(args.mode));
  }
}

// The name exists: an error, or for a regular file that is wanted as it is, that file.
Result<MakeResult> existing(Env& env, const MakeArgs& args, InodeRecord parent, const DentryRecord& dentry) {
  if (args.exclusive || !S_ISREG(args.mode)) {
    return fail(Code::kExists, log_quote(args.name) + " exists in directory " + to_string(args.parent));
  }
  if (S_ISDIR(dentry.type)) return fail(Code::kIsDirectory, log_quote(args.name) + " is a directory");
  const bool writes = args.open && S_ISREG(dentry.type);
  if (writes) {
    env.gate.changes(dentry.inode);
  } else {
    env.gate.reads(dentry.inode);
  }
  TRYV(env.gate.settle());
  TRY(auto record, load_inode(env.txn, dentry.inode));
  MakeResult result{{dentry.inode, std::move(record)}, std::move(parent), false, {}};
  if (writes) {
    TRYV(add_open(env.txn, env.session, dentry.inode));
    TRY(result.exclusive, grant_exclusive(env, result.inode));
  }
  return result;
}

InodeRecord fresh_inode(Env& env, const MakeArgs& args, const InodeRecord& parent) {
  InodeRecord inode;
  inode.mode = args.mode & (S_IFMT | 07777);
  inode.uid = args.uid;
  inode.gid = args.gid;
  if (parent.mode & S_ISGID) {
    inode.gid = parent.gid;
    if (inode.is_directory()) inode.mode |= S_ISGID;
  }
  inode.nlink = inode.is_directory() ? 2 : 1;
  inode.parent = args.parent;
  inode.atime = inode.mtime = inode.ctime = inode.btime = env.txn.wall_ns();
  inode.change = 1;
  if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) inode.rdev = args.rdev;
  if (inode.is_symlink()) inode.size = args.target.size();
  if (inode.is_regular()) inode.layers = {fresh_layer(env.txn, env.cluster.default_pool())};
  return inode;
}

}  // namespace

Result<MakeResult> make(Env& env, const MakeArgs& args) {
  TRYV(check_name(args.name));
  TRYV(check_type(args));
  TRY(auto parent, load_directory_inode(env.txn, args.parent));
  TRY(auto dentry, find_dentry(env.txn, args.parent, args.name));
  if (dentry) return existing(env, args, std::move(parent), *dentry);
  env.gate.changes(args.parent);
  TRYV(env.gate.settle());

  MakeResult result;
  result.created = true;
  result.inode.id = InodeId(env.txn.next_id());
  InodeRecord& inode = result.inode.record;
  inode = fresh_inode(env, args, parent);
  if (parent.flags & InodeRecord::kHasDefaultAcl) {
    const std::uint32_t mode = args.full_mode != 0 ? args.full_mode : args.mode;
    TRYV(inherit_acl(env, args.parent, result.inode.id, inode, mode));
  }
  if (inode.is_directory()) {
    store_directory(env.txn, result.inode.id, {args.parent, 0, 0, 1});
    ++parent.nlink;
  }
  if (inode.is_symlink()) env.txn.put(keys::symlink(result.inode.id), args.target);
  TRYV(add_dentry(env.txn, args.parent, args.name, result.inode.id, inode.mode));
  TRYV(add_usage(env.txn, args.parent, 0, 1, Limits::kEnforced));
  TRYV(add_counters(env.txn, 1, inode.is_directory() ? 1 : 0, 0));
  touch_entries(env.txn, parent);
  store_inode(env.txn, args.parent, parent);
  if (args.open && inode.is_regular()) {
    TRYV(add_open(env.txn, env.session, result.inode.id));
    TRY(result.exclusive, grant_exclusive(env, result.inode));
  }
  store_inode(env.txn, result.inode.id, inode);
  result.parent = std::move(parent);
  return result;
}

}  // namespace cairn::meta::ops
