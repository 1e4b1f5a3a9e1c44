#include "meta/ops/operations.h"

namespace cairn::meta::ops {

namespace {

Result<> raise_bound(Env& env, const ExtendBoundArgs& args, InodeRecord& inode) {
  if (args.bound <= inode.bound) return {};
  if (args.bound > UINT32_MAX)
    return fail(Code::kRange, "a file can't have so many chunks: " + std::to_string(args.bound));
  SpaceInfo space = env.cluster.space();
  const std::uint64_t wanted = (args.bound - inode.bound) * inode.chunk_size();
  if (space.known && space.total_bytes > 0 && wanted > space.available_bytes) {
    TRY(const Counters counters, load_counters(env.txn));
    space.available_bytes += counters.trash_bytes;  // goes when its space is needed
  }
  if (space.known && space.total_bytes > 0 && wanted > space.available_bytes) {
    // A client asks ahead in large steps; near the end it gets what one chunk needs, which may lie far
    // behind.
    if (inode.chunk_size() > space.available_bytes) {
      return fail(Code::kNoSpace, "the cluster has " + std::to_string(space.available_bytes) + " bytes left");
    }
    inode.bound =
        std::max(inode.bound + space.available_bytes / inode.chunk_size(), std::min(args.needed, args.bound));
  } else {
    inode.bound = args.bound;
  }
  return {};
}

}  // namespace

Result<ExtendBoundResult> extend_bound(Env& env, const ExtendBoundArgs& args) {
  TRYV(check_exclusive(env.txn, env.session, args.inode, args.generation));
  TRY(auto inode, load_inode(env.txn, args.inode));
  if (!inode.is_regular())
    return fail(Code::kInvalidArgument, "inode " + to_string(args.inode) + " is no regular file");
  TRYV(raise_bound(env, args, inode));
  TRY(const Allowance allowed, extend_allowance(env.txn, args.inode, inode, args.bytes));
  store_inode(env.txn, args.inode, inode);
  return ExtendBoundResult{inode.bound, allowed};
}

}  // namespace cairn::meta::ops
