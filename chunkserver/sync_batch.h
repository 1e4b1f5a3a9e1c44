// Answers one Sync request: one engine sync a target and one request to each successor for the whole batch,
// at the same time; a chunk is ok when it is synced here and everywhere behind (docs/replication.md, rule
// 10).
#pragma once

#include <memory>
#include <vector>

#include "chunkserver/group_table.h"

namespace cairn::chunkserver {

struct SyncItem {
  ChunkId chunk;
  PoolId pool;
  Epoch epoch;
  Version version;
  TargetId target;  // 0: whichever member this server has
};
struct SyncResult {
  Code code = Code::kOk;
  Epoch epoch;  // of the group, as known here
};

class SyncBatch : public std::enable_shared_from_this<SyncBatch> {
 public:
  SyncBatch(GroupEnv& env, const GroupTable& groups, std::vector<SyncItem> items, SessionId session,
            Deadline deadline);
  // Same order as the items.
  static rpc::Task<std::vector<SyncResult>> run(std::shared_ptr<SyncBatch> self);

 private:
  struct Item {
    SyncItem asked;
    std::shared_ptr<Group> group;
    std::optional<GroupMember> successor;
    bool successor_may_lack = false;  // a joiner behind copies enough
    Code code = Code::kOk;            // here
    Code rest = Code::kOk;            // behind
    Epoch epoch;
  };
  struct Leg {  // what is awaited: one target's sync, or one successor's answer
    Leg(rpc::Runtime& runtime) : done(runtime) {}
    std::vector<std::size_t> items;
    rpc::Event done;
  };
  void not_run(Leg& leg, Code Item::*outcome);
  static rpc::Task<> sync_here(std::shared_ptr<SyncBatch> self, Target* target, std::shared_ptr<Leg> leg);
  static rpc::Task<> ask_successor(std::shared_ptr<SyncBatch> self, ServerId server,
                                   std::shared_ptr<Leg> leg);

  GroupEnv& env_;
  const SessionId session_;
  const Deadline deadline_;
  std::vector<Item> items_;  // each leg touches its own members of its own items only
};

}  // namespace cairn::chunkserver
