#include "meta/keys.h"
#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

Result<> drop_name(Env& env, InodeId parent, InodeView& inode, NameEnds how) {
  InodeRecord& record = inode.record;
  touch(env.txn, record);
  record.nlink = record.is_directory() ? 0 : record.nlink - 1;
  if (record.nlink > 0) {
    TRYV(name_removed(env.txn, inode.id, record, parent));
    store_inode(env.txn, inode.id, record);
    return {};
  }
  TRYV(add_usage(env.txn, record.parent, -static_cast<std::int64_t>(record.bytes), -1));
  record.parent = InodeId{};
  TRY(const bool open, is_open(env.txn, inode.id));
  const bool lingers = !open && how == NameEnds::kReplaced && record.is_regular();
  if (lingers) env.gate.lingers(inode.id);
  if (!open && !lingers) {
    env.gate.deleted(inode.id);
    return delete_inode(env.txn, env.cluster, inode.id, record);
  }
  if (record.is_directory()) env.txn.erase(keys::directory(inode.id));
  env.txn.put(keys::orphan(inode.id), CountRecord{1}.encode());
  store_inode(env.txn, inode.id, record);
  return {};
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
  TRYV(drop_name(env, args.parent, inode, NameEnds::kRemoved));
  return DirsResult{std::move(parent), {}};
}

}  // namespace cairn::meta::ops
