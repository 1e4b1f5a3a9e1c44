// What a target remembers of its groups over restarts, synced before it is acted on: the highest epoch that
// it took part in (a version must never be given twice, a member never goes back), and when the group last
// reconciled after all members had restarted (a sync of an older version must not be answered by a newer
// one). Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "store/disk/chunk_engine.h"

namespace cairn::chunkserver {

struct GroupPast {
  Epoch epoch;
  Epoch reconciled_at;  // 0: never
  bool operator==(const GroupPast&) const = default;
};

class GroupMemory {
 public:
  struct Entry {
    GroupId group;
    GroupPast past;
  };

  // Once, at start: what the process before left.
  Result<> restore(disk::ChunkEngine& engine);
  GroupPast before_start(const GroupId& group) const;
  // Raises what is remembered; on return it is on disk. Blocks: pool threads only.
  Result<> remember(disk::ChunkEngine& engine, const std::vector<Entry>& entries);

 private:
  std::string encode() const;

  std::map<GroupId, GroupPast> before_;  // constant after restore()
  std::mutex mutex_;
  std::map<GroupId, GroupPast>
      now_;  // guarded by mutex_, which is held over the write: the last one must win
};

}  // namespace cairn::chunkserver
