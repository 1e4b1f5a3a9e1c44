#include "meta/ops/operations.h"

namespace cairn::meta::ops {

Result<StatFs> statfs(Env& env) {
  const SpaceInfo space = env.cluster.space();
  if (!space.known)
    return fail(Code::kStarting, "not all chunkservers have told yet how much room they have: try again");
  TRY(auto counters, load_counters(env.txn));
  return StatFs{space.total_bytes, space.available_bytes, counters.inodes};
}

}  // namespace cairn::meta::ops
