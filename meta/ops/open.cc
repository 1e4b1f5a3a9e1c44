#include <algorithm>

#include "meta/ops/operations.h"

namespace cairn::meta::ops {

Result<LeaseGeneration> grant_exclusive(Env& env, InodeView& inode) {
  InodeRecord& record = inode.record;
  const std::uint64_t bound = std::max(record.bound, record.chunks_of(record.size) + kInitialBound);
  if (bound != record.bound) {
    record.bound = bound;
    store_inode(env.txn, inode.id, record);
  }
  return take_exclusive(env.txn, env.session, inode.id);
}

Result<OpenResult> open(Env& env, const OpenArgs& args) {
  const bool changes = args.write || args.truncate;
  if (changes) {
    env.gate.changes(args.inode);
  } else {
    env.gate.reads(args.inode);
  }
  TRYV(env.gate.settle());
  TRY(auto record, load_inode(env.txn, args.inode));
  OpenResult result{{args.inode, std::move(record)}, {}};
  InodeRecord& inode = result.inode.record;
  if (changes && inode.is_directory()) {
    return fail(Code::kIsDirectory, "inode " + to_string(args.inode) + " is a directory");
  }
  if (inode.is_symlink())
    return fail(Code::kInvalidArgument, "inode " + to_string(args.inode) + " is a symbolic link");
  if (args.truncate && inode.is_regular()) {
    TRYV(truncate_to_zero(env, result.inode));
    inode.mtime = env.txn.wall_ns();
    touch(env.txn, inode);
    store_inode(env.txn, args.inode, inode);
  }
  TRYV(add_open(env.txn, env.session, args.inode));
  if (args.write && inode.is_regular()) {
    TRY(result.exclusive, grant_exclusive(env, result.inode));
  }
  return result;
}

}  // namespace cairn::meta::ops
