#include <algorithm>

#include "meta/ops/operations.h"

namespace cairn::meta::ops {

Result<StatFs> statfs(Env& env, InodeId inode) {
  const SpaceInfo space = env.cluster.space();
  if (!space.known)
    return fail(Code::kStarting, "not all chunkservers have told yet how much room they have: try again");
  TRY(auto counters, load_counters(env.txn));
  // What is in the trash goes when its space is needed.
  const std::uint64_t available = std::min(space.total_bytes, space.available_bytes + counters.trash_bytes);
  StatFs out{space.total_bytes, available, counters.inodes, 0};
  if (!inode.valid()) return out;
  TRY(auto record, find_inode(env.txn, inode));
  if (!record) return out;
  std::uint64_t files_left = UINT64_MAX;
  for (InodeId at = record->is_directory() && record->nlink > 0 ? inode : record->parent; at.valid();) {
    TRY(auto directory, load_directory(env.txn, at));
    const auto left = [](std::uint64_t most, std::int64_t used) {
      return most - std::min(most, static_cast<std::uint64_t>(std::max<std::int64_t>(used, 0)));
    };
    if (directory.bytes_max != 0) {
      out.total = std::min(out.total, directory.bytes_max);
      out.available = std::min(out.available, left(directory.bytes_max, directory.bytes));
    }
    if (directory.inodes_max != 0 && left(directory.inodes_max, directory.inodes) < files_left) {
      files_left = left(directory.inodes_max, directory.inodes);
      out.files_max = directory.inodes_max;
      out.files = directory.inodes_max - files_left;
    }
    at = directory.parent;
  }
  return out;
}

}  // namespace cairn::meta::ops
