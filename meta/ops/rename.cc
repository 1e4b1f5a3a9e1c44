#include <sys/stat.h>

#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta::ops {

namespace {

// kCrossesTree if `directory` is `inode` or below it.
Result<> check_not_below(Txn& txn, InodeId directory, InodeId inode) {
  for (InodeId at = directory; at.valid();) {
    if (at == inode) {
      return fail(Code::kCrossesTree, "directory " + to_string(inode) + " can't move into itself or below");
    }
    TRY(auto record, load_directory(txn, at));
    at = record.parent;
  }
  return {};
}

// A name of `inode` moved from one directory to another: where it is accounted for, and ".." of a directory.
Result<> reparent(Env& env, InodeView& inode, InodeId from, InodeId to, UsageChange& usage) {
  touch(env.txn, inode.record);
  if (from != to) {
    if (inode.record.is_directory()) {
      TRY(auto directory, load_directory(env.txn, inode.id));
      usage.add(from, -directory.bytes, -directory.inodes - 1);
      usage.add(to, directory.bytes, directory.inodes + 1);
      directory.parent = to;
      store_directory(env.txn, inode.id, directory);
      inode.record.parent = to;
    } else {
      TRYV(name_moved(env.txn, inode.id, inode.record, from, to, usage));
    }
  }
  store_inode(env.txn, inode.id, inode.record);
  return {};
}

Result<> check_replace(Env& env, const RenameArgs& args, const InodeView& source, const InodeView& target) {
  if (source.record.is_directory() && !target.record.is_directory()) {
    return fail(Code::kNotDirectory, log_quote(args.new_name) + " is not a directory");
  }
  if (!source.record.is_directory() && target.record.is_directory()) {
    return fail(Code::kIsDirectory, log_quote(args.new_name) + " is a directory");
  }
  if (target.record.is_directory()) {
    TRY(const bool empty, directory_is_empty(env.txn, target.id));
    if (!empty) return fail(Code::kNotEmpty, "directory " + log_quote(args.new_name) + " is not empty");
  }
  return {};
}

// The character device 0:0 that takes the place of what moved: it tells a union file system that the name
// below is gone.
Result<> leave_whiteout(Env& env, const RenameArgs& args, std::uint64_t cookie, UsageChange& usage) {
  InodeRecord inode;
  inode.mode = S_IFCHR;
  inode.uid = args.uid;
  inode.gid = args.gid;
  inode.nlink = 1;
  inode.parent = args.parent;
  inode.atime = inode.mtime = inode.ctime = inode.btime = env.txn.wall_ns();
  inode.change = 1;
  const InodeId id(env.txn.next_id());
  store_inode(env.txn, id, inode);
  replace_dentry(env.txn, args.parent, args.name, {id, S_IFCHR, cookie});
  usage.add(args.parent, 0, 1);
  return add_counters(env.txn, 1, 0, 0);
}

}  // namespace

Result<DirsResult> rename(Env& env, const RenameArgs& args) {
  Txn& txn = env.txn;
  TRYV(check_name(args.name));
  TRYV(check_name(args.new_name));
  const bool exchange = (args.flags & RenameArgs::kExchange) != 0;
  const bool no_replace = (args.flags & RenameArgs::kNoReplace) != 0;
  const bool whiteout = (args.flags & RenameArgs::kWhiteout) != 0;
  if ((args.flags & ~7u) != 0 || (exchange && (no_replace || whiteout))) {
    return fail(Code::kInvalidArgument, "rename does not know the flags " + std::to_string(args.flags));
  }
  const bool same_parent = args.parent == args.new_parent;
  TRY(auto parent, load_directory_inode(txn, args.parent));
  TRY(auto new_parent, load_directory_inode(txn, args.new_parent));
  TRY(auto from, find_dentry(txn, args.parent, args.name));
  if (!from)
    return fail(Code::kNotFound, "no " + log_quote(args.name) + " in directory " + to_string(args.parent));
  TRY(auto to, find_dentry(txn, args.new_parent, args.new_name));
  if (exchange && !to) {
    return fail(Code::kNotFound,
                "no " + log_quote(args.new_name) + " in directory " + to_string(args.new_parent));
  }
  if (to && no_replace) return fail(Code::kExists, log_quote(args.new_name) + " exists");
  if (to && to->inode == from->inode)
    return DirsResult{parent, new_parent};  // names of one file: POSIX changes nothing
  env.gate.changes(args.parent);
  env.gate.changes(args.new_parent);
  env.gate.changes(from->inode);
  if (to) env.gate.changes(to->inode);
  TRYV(env.gate.settle());

  TRY(auto source_record, load_inode(txn, from->inode));
  InodeView source{from->inode, std::move(source_record)};
  if (source.record.is_directory()) TRYV(check_not_below(txn, args.new_parent, source.id));
  std::optional<InodeView> target;
  if (to) {
    TRY(auto record, load_inode(txn, to->inode));
    target = InodeView{to->inode, std::move(record)};
    if (exchange && target->record.is_directory()) TRYV(check_not_below(txn, args.parent, target->id));
    if (!exchange) TRYV(check_replace(env, args, source, *target));
  }

  // Links that ".." of moved directories give to their parents.
  InodeRecord& last = same_parent ? parent : new_parent;
  if (source.record.is_directory()) {
    --parent.nlink;
    ++last.nlink;
  }
  if (target && target->record.is_directory()) {
    --last.nlink;
    if (exchange) ++parent.nlink;
  }
  touch_entries(txn, parent);
  store_inode(txn, args.parent, parent);
  if (!same_parent) {
    touch_entries(txn, new_parent);
    store_inode(txn, args.new_parent, new_parent);
  }

  UsageChange usage;
  bool kept = false;
  if (exchange) {
    replace_dentry(txn, args.parent, args.name, {to->inode, to->type, from->cookie});
    replace_dentry(txn, args.new_parent, args.new_name, {from->inode, from->type, to->cookie});
    TRYV(reparent(env, source, args.parent, args.new_parent, usage));
    TRYV(reparent(env, *target, args.new_parent, args.parent, usage));
  } else {
    erase_dentry(txn, args.parent, args.name, *from);
    if (target) {
      erase_dentry(txn, args.new_parent, args.new_name, *to);
      TRY(kept, drop_name(env, *target,
                          {args.new_parent, args.new_name, NameEnds::kReplaced, args.uid, args.size}));
    }
    TRYV(add_dentry(txn, args.new_parent, args.new_name, source.id, from->type));
    TRYV(reparent(env, source, args.parent, args.new_parent, usage));
    if (whiteout) TRYV(leave_whiteout(env, args, from->cookie, usage));
  }
  TRYV(usage.apply(txn, Limits::kEnforced));
  return DirsResult{parent, last, kept};
}

}  // namespace cairn::meta::ops
