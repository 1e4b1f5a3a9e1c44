#include "meta/ops/operations.h"

namespace cairn::meta::ops {

Result<std::uint64_t> extend_bound(Env& env, const ExtendBoundArgs& args) {
  TRYV(check_exclusive(env.txn, env.session, args.inode, args.generation));
  TRY(auto inode, load_inode(env.txn, args.inode));
  if (!inode.is_regular())
    return fail(Code::kInvalidArgument, "inode " + to_string(args.inode) + " is no regular file");
  if (args.bound <= inode.bound) return inode.bound;
  if (args.bound > UINT32_MAX)
    return fail(Code::kRange, "a file can't have so many chunks: " + std::to_string(args.bound));
  const SpaceInfo space = env.cluster.space();
  const std::uint64_t wanted = (args.bound - inode.bound) * inode.chunk_size();
  if (space.known && space.total_bytes > 0 && wanted > space.available_bytes) {
    // A client asks ahead in large steps; near the end it gets what one chunk needs.
    if (inode.chunk_size() > space.available_bytes) {
      return fail(Code::kNoSpace, "the cluster has " + std::to_string(space.available_bytes) + " bytes left");
    }
    inode.bound += space.available_bytes / inode.chunk_size();
  } else {
    inode.bound = args.bound;
  }
  store_inode(env.txn, args.inode, inode);
  return inode.bound;
}

}  // namespace cairn::meta::ops
