#include "meta/keys.h"
#include "meta/ops/operations.h"
#include "meta/quota.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

Result<bool> drop_name(Env& env, InodeView& inode, const DropArgs& args) {
  InodeRecord& record = inode.record;
  touch(env.txn, record);
  record.nlink = record.is_directory() ? 0 : record.nlink - 1;
  if (record.nlink > 0) {
    TRYV(name_removed(env.txn, inode.id, record, args.parent));
    store_inode(env.txn, inode.id, record);
    return false;
  }
  TRY(const std::int64_t bytes, charged_bytes(env.txn, inode.id, record));
  TRYV(add_usage(env.txn, record.parent, -bytes, -1));
  record.parent = InodeId{};
  forget_reserved(env.txn, inode.id, record);
  TRY(const bool kept, keep(env, inode, args));
  if (kept) return true;
  TRY(const bool open, is_open(env.txn, inode.id));
  const bool lingers = !open && args.how == NameEnds::kReplaced && record.is_regular();
  if (record.is_directory()) TRYV(keep_directory(env, inode, args));
  if (lingers) env.gate.lingers(inode.id);
  if (!open && !lingers) {
    env.gate.deleted(inode.id);
    TRYV(delete_inode(env.txn, env.cluster, inode.id, record));
    return false;
  }
  if (record.is_directory()) {
    env.txn.erase(keys::directory(inode.id));
    env.txn.erase(keys::directory_setting(inode.id));
  }
  env.txn.put(keys::orphan(inode.id), CountRecord{1}.encode());
  store_inode(env.txn, inode.id, record);
  return false;
}

Result<DirsResult> remove(Env& env, const RemoveArgs& args) {
  TRYV(check_name(args.name));
  TRY(auto parent, load_directory_inode(env.txn, args.parent));
  TRY(auto dentry, find_dentry(env.txn, args.parent, args.name));
  if (!dentry)
    return fail(Code::kNotFound, "no " + log_quote(args.name) + " in directory " + to_string(args.parent));
  env.gate.changes(args.parent);
  env.gate.changes(dentry->inode);
  TRYV(env.gate.settle());

  TRY(auto record, load_inode(env.txn, dentry->inode));
  InodeView inode{dentry->inode, std::move(record)};
  if (inode.record.is_directory()) {
    if (!args.directory) return fail(Code::kIsDirectory, log_quote(args.name) + " is a directory");
    TRY(const bool empty, directory_is_empty(env.txn, inode.id));
    if (!empty) return fail(Code::kNotEmpty, "directory " + log_quote(args.name) + " is not empty");
    --parent.nlink;
  } else if (args.directory) {
    return fail(Code::kNotDirectory, log_quote(args.name) + " is not a directory");
  }
  erase_dentry(env.txn, args.parent, args.name, *dentry);
  touch_entries(env.txn, parent);
  store_inode(env.txn, args.parent, parent);
  TRY(const bool kept,
      drop_name(env, inode, {args.parent, args.name, NameEnds::kRemoved, args.uid, args.size}));
  return DirsResult{std::move(parent), {}, kept};
}

}  // namespace cairn::meta::ops
