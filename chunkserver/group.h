// One group on one target of this server: its place in the chain, the writes on their way, and what it
// serves.
//
// The rules are those of docs/replication.md. In short: the head gives versions; a write is applied here and
// passed on at the same time, and is acknowledged backwards when both are done; until then its chunk is
// *dirty* here and no reader sees it. There is at most one dirty version a chunk (ChunkLocks). When the epoch
// changes, each dirty version is sent to the new successor under the new epoch (pass_on() starts again), so
// nothing else has to be rolled forward, and a chunk that is not dirty can be served at once. A member only
// ever takes a higher epoch.
//
// Threading: thread-safe. State is guarded by one mutex that is never held over a wait; it takes the place of
// a strand, so that a read costs one thread change (to the disk and back) and a cancelled request never
// unwinds the group's work. After every wait the code looks at the place and epoch again. Writes run in tasks
// of GroupEnv::tasks, not in the request that brought them: a client that goes away does not stop a write
// half way down the chain.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "chunkserver/chunk_locks.h"
#include "chunkserver/counters.h"
#include "chunkserver/group_config.h"
#include "chunkserver/group_memory.h"
#include "chunkserver/join_ledger.h"
#include "chunkserver/pacer.h"
#include "chunkserver/peers.h"
#include "chunkserver/purged_ids.h"
#include "chunkserver/quota.h"
#include "chunkserver/server_lease.h"
#include "chunkserver/session_fence.h"
#include "chunkserver/target.h"
#include "chunkserver/write_op.h"

namespace cairn::chunkserver {

// What all groups of a server share. Outlives them.
struct GroupEnv {
  rpc::Runtime& runtime;
  rpc::TaskGroup& tasks;
  Peers& peers;
  SessionFence& sessions;
  const ServerLease& lease;
  Counters& counters;
  PurgedIds& purged;
  Pacer& pacer;
  Quota& copies;  // chunks being copied in, of all groups
  Quota& copy_bytes;
  Quota& compares;  // groups being compared
  std::function<void()>
      heartbeat_now;  // something changed that the metadata server should know, or tell, at once
};

struct ReadOutcome {
  disk::ReadResult content;
};

struct FetchedChunk {
  disk::ChunkInfo info;
  std::vector<BlockChecksum> checksums;
  rpc::Buffer bytes;
};

struct ChunkPage {
  std::vector<disk::ChunkInfo> chunks;
  bool done = false;
  Epoch reconciled_at;
};

struct GroupProgress {
  enum class State : std::uint8_t { kCopying, kCaughtUp, kReconciling, kReconciled, kFailed };
  Epoch epoch;
  State state = State::kCopying;
  std::uint64_t chunks_left = 0;
  std::uint64_t bytes_left = 0;
  std::uint64_t bytes_copied = 0;
};

// A consistent look at the group's place; `changed` is set when any of it changes.
struct GroupView {
  Epoch epoch;
  Place place;
  bool open = false;  // activated and not reconciling
  bool reconcile = false;
  std::uint32_t slots = 0;
  std::uint8_t min_replicas = 1;
  std::shared_ptr<rpc::Event> changed;
};

class Group : public std::enable_shared_from_this<Group> {
 public:
  // `memory` is the target's. `aside`: what it remembers of chunks set aside.
  Group(GroupId id, Target& target, GroupMemory& memory, GroupEnv& env, std::vector<ChunkId> aside);

  const GroupId& id() const { return id_; }
  Target& target() { return target_; }

  // --- configuration (group.cc) ---
  // Takes a configuration; an older epoch than the present one is ignored. On return this member acts on it:
  // what it answers from now on, also to requests that were under way, is in the new epoch. Starts catch-up
  // or reconciliation.
  void configure(const GroupConfig& config);
  // The target is no member of the group any more.
  void leave(Epoch epoch);
  GroupView view() const;

  // --- what is left over on a target that left the group (group_drop.cc) ---
  struct Dropped {
    std::uint64_t chunks = 0;
    std::size_t kept = 0;  // set aside
  };
  // Removes the chunks that every in-sync member lists, synced, in exactly this epoch, in which the group is
  // whole without this target; others are set aside. kWrongEpoch: the configuration is another. After any
  // error: some may be gone, the call may be repeated.
  rpc::Task<Result<Dropped>> drop(Epoch epoch);
  // Call before configure(): no chunk is removed any more once this returned.
  rpc::Task<> stop_dropping();
  // Forgets chunks set aside that were purged since. Blocks: pool threads only.
  void review_aside(disk::ChunkEngine& engine);
  Epoch reconciled_at() const;
  std::optional<GroupProgress> progress() const;
  std::size_t aside_count() const;

  // --- for clients ---
  // group_write.cc. Errors: kWrongEpoch, kNotServing, kSessionEnded, kDegraded, kNoSpace, kTimeout: nothing
  // was done. kMaybeApplied: retry with the same request id. A retry of what was done gives the stored
  // result.
  rpc::Task<Result<WriteOutcome>> write(WriteSpec spec, rpc::Buffer payload, Deadline deadline);
  // group_read.cc. kNotFound: the chunk does not exist. kNotHere, kBusyPending, kNotServing, kWrongEpoch: ask
  // another. kCorrupt: no good copy was found.
  rpc::Task<Result<ReadOutcome>> read(ChunkId chunk, Epoch epoch, std::uint32_t offset, std::uint32_t length,
                                      Deadline deadline);
  // group_sync.cc. Whether this member may answer for a sync under `epoch`, and after a sync of the target
  // whether `version` is on its disk. A joiner that lacks the chunk and must count as a copy fetches it
  // first.
  rpc::Task<Result<>> prepare_sync(ChunkId chunk, Epoch epoch, Deadline deadline);
  Result<> synced(disk::ChunkEngine& engine, ChunkId chunk, Epoch epoch, Version version);  // pool thread

  // --- for other members ---
  rpc::Task<Result<WriteOutcome>> forward(WriteSpec spec, rpc::Buffer payload,
                                          Deadline deadline);  // group_hop.cc
  // group_source.cc. Only an in-sync member answers, or any one while the group reconciles.
  rpc::Task<Result<ChunkPage>> list(Epoch epoch, std::uint32_t slots, std::optional<ChunkId> after,
                                    std::uint32_t limit);
  // `length` 0: the whole chunk; else whole blocks from `offset` on, cut at its length. kCorrupt: a block of
  // them is damaged here.
  rpc::Task<Result<FetchedChunk>> fetch(ChunkId chunk, Epoch epoch, std::uint32_t offset,
                                        std::uint32_t length);
  rpc::Task<Result<WriteOutcome>> reversion(ChunkId chunk, Epoch epoch, Version above, Deadline deadline);

 private:
  friend class Joiner;
  friend class Reconciler;
  using OpPtr = std::shared_ptr<WriteOp>;
  enum class Need { kRead, kWrite };

  // group.cc
  void apply_place(std::unique_lock<std::mutex>& lock, const GroupConfig& config);
  GroupView view_locked() const;
  std::optional<Error> refusal(const GroupView& view, Epoch epoch, Need need) const;
  // Waits (bounded) for the epoch that the request names, activation, or enough members.
  rpc::Task<Result<GroupView>> admit(Epoch epoch, Need need, Deadline deadline);
  Error wrong_epoch(Epoch theirs, Epoch mine) const;

  // group_write.cc: the head
  static rpc::Task<> carry_write(std::shared_ptr<Group> self, OpPtr op);
  rpc::Task<Result<WriteOutcome>> order_write(OpPtr op);
  rpc::Task<Result<std::optional<disk::ChunkInfo>>> stored_now(ChunkId chunk, PoolId pool);
  rpc::Task<Result<>> make_whole(OpPtr op, std::optional<disk::ChunkInfo> stored);
  Result<> begin(const OpPtr& op, const std::optional<disk::ChunkInfo>& stored);

  // group_hop.cc: the others
  static rpc::Task<> carry_hop(std::shared_ptr<Group> self, OpPtr op);
  rpc::Task<Result<WriteOutcome>> take_hop(OpPtr op);
  rpc::Task<Result<WriteOutcome>> take_hop_as_joiner(OpPtr op, std::shared_ptr<JoinLedger> ledger);
  // Stores what the chain holds of this chunk, with `op` applied: for a member that lacks the base.
  rpc::Task<Result<>> pull(OpPtr op, GroupMember source);

  // group_chain.cc: both
  rpc::Task<Result<WriteOutcome>> replicate(OpPtr op);
  rpc::Task<Result<Epoch>> pass_on(OpPtr op);
  rpc::Task<Result<>> apply_here(OpPtr op);
  void start_apply(const OpPtr& op);
  bool low_on_space(const WriteOp& op) const;
  void finish(const OpPtr& op, Result<WriteOutcome> result);

  Result<> may_give(Epoch epoch) const;  // group_source.cc

  // group_drop.cc
  bool may_drop(const GroupConfig& config, Epoch epoch) const;
  rpc::Task<Result<>> drop_page(GroupConfig config, std::vector<disk::ChunkInfo> own,
                                std::optional<ChunkId> after, std::shared_ptr<std::vector<ChunkId>> kept);
  rpc::Task<Result<>> purge_left_over(Epoch epoch, std::vector<ChunkId> chunks);
  static rpc::Task<> repair_later(std::shared_ptr<Group> self, ChunkId chunk, BlockRange range);

  // joiner.cc: makes this chunk what the in-sync members have; success if it is.
  rpc::Task<Result<>> copy_chunk(ChunkId chunk, std::shared_ptr<JoinLedger> ledger);
  bool joins(const std::shared_ptr<JoinLedger>& ledger) const;

  rpc::Task<Result<FetchedChunk>> fetch_from(GroupMember member, ChunkId chunk, Epoch epoch,
                                             Deadline deadline);  // group_read.cc

  // group_repair.cc. Makes `range` of the chunk readable again, and what else is damaged of it as far as
  // possible. kCorrupt: no member has a good copy of a block of the range. kNotHere: a member could not be
  // asked; try again. `locked`: the caller holds the chunk.
  rpc::Task<Result<>> repair(ChunkId chunk, BlockRange range, bool locked);
  struct Damage;
  Result<Damage> look_for_damage(disk::ChunkEngine& engine, ChunkId chunk);
  void note_damage(disk::ChunkEngine& engine);
  enum class Mended { kYes, kNowhere, kUnknown };
  rpc::Task<Mended> mend(std::shared_ptr<const Damage> damage, BlockRange blocks);
  rpc::Task<Result<rpc::Buffer>> fetch_blocks(GroupMember member, std::shared_ptr<const Damage> damage,
                                              BlockRange blocks, Epoch epoch);
  Error unreadable(const ChunkId& chunk, std::uint32_t block, std::string_view why) const;
  OpPtr active_op(const ChunkId& chunk) const;
  bool note_lease(const WriteSpec& spec);

  bool aside_locked(const ChunkId& chunk) const { return aside_.contains(chunk); }
  std::string aside_key() const;
  static std::string encode_chunks(const std::vector<ChunkId>& chunks);
  void no_longer_aside(disk::ChunkEngine& engine, const ChunkId& chunk);

  const GroupId id_;
  Target& target_;
  GroupMemory& memory_;
  GroupEnv& env_;
  const GroupPast past_;
  ChunkLocks locks_;

  mutable std::mutex mutex_;
  // All below guarded by mutex_.
  GroupConfig config_;
  Place place_;
  std::shared_ptr<rpc::Event> changed_;
  Epoch reconciled_at_;
  std::uint64_t counter_ = 0;                  // head: of the last version given in this epoch
  std::unordered_map<ChunkId, OpPtr> active_;  // dirty chunks
  std::unordered_map<ChunkId, disk::ChunkInfo>
      recent_;                                // head: what is stored, of chunks written lately in this epoch
  std::uint64_t rest_available_ = 0;          // bytes left down the chain, as last heard in this epoch
  std::shared_ptr<JoinLedger> ledger_;        // joiner only
  std::optional<GroupProgress> reconciling_;  // head while reconciling
  // Highest lease generation seen of an inode: a writer whose lease went on to another is refused. Memory
  // only: what must hold over restarts is the fence of sessions.
  std::unordered_map<InodeId, LeaseGeneration> leases_;
  std::unordered_set<ChunkId> aside_;     // chunks here that the in-sync members did not know
  bool drops_stopped_ = false;            // between stop_dropping() and configure()
  std::shared_ptr<rpc::Event> dropping_;  // set when the batch being removed is gone; null: none is
};

// Decodes what Group keeps of chunks set aside. Used when a target is opened.
Result<std::vector<ChunkId>> decode_aside(std::string_view bytes);
std::string aside_prefix();

}  // namespace cairn::chunkserver
