#include "meta/keys.h"
#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

Result<LinkResult> link(Env& env, const LinkArgs& args) {
  TRYV(check_name(args.name));
  TRY(auto parent, load_directory_inode(env.txn, args.parent));
  TRY(auto dentry, find_dentry(env.txn, args.parent, args.name));
  if (dentry)
    return fail(Code::kExists, log_quote(args.name) + " exists in directory " + to_string(args.parent));
  env.gate.changes(args.parent);
  env.gate.changes(args.inode);
  TRYV(env.gate.settle());

  TRY(auto record, load_inode(env.txn, args.inode));
  if (record.is_directory()) return fail(Code::kNotPermitted, "a directory can't have a second name");
  if (record.nlink == 0) return fail(Code::kNotFound, "inode " + to_string(args.inode) + " was removed");
  if (record.nlink >= kLinksMax)
    return fail(Code::kTooManyLinks, "inode " + to_string(args.inode) + " has 65000 names");
  TRYV(add_dentry(env.txn, args.parent, args.name, args.inode, record.mode));
  TRYV(name_added(env.txn, args.inode, record, args.parent));
  ++record.nlink;
  touch(env.txn, record);
  store_inode(env.txn, args.inode, record);
  touch_entries(env.txn, parent);
  store_inode(env.txn, args.parent, parent);
  return LinkResult{{args.inode, std::move(record)}, std::move(parent)};
}

Result<std::string> readlink(Env& env, InodeId inode) {
  TRY(auto record, load_inode(env.txn, inode));
  if (!record.is_symlink())
    return fail(Code::kInvalidArgument, "inode " + to_string(inode) + " is not a symbolic link");
  TRY(auto target, env.txn.get(keys::symlink(inode)));
  if (!target) return fail(Code::kCorrupt, "symbolic link " + to_string(inode) + " has no target");
  return std::move(*target);
}

}  // namespace cairn::meta::ops
