// The head: admits a client's write, gives it its version, and carries it down the chain.
#include <fmt/format.h>

#include "chunkserver/group.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::size_t kInlineBytesMax = 64
                                        << 10;  // checksums of so much are made on an io thread: microseconds

WriteOutcome outcome_of_stored(const disk::ChunkInfo& info) {
  return {.version = info.version, .digest = info.digest, .length = info.length};
}

bool present(const std::optional<disk::ChunkInfo>& info) {
  return info && info->state == disk::ChunkState::kPresent;
}

// Whether this kind of write can be done to what is stored.
Result<> check_kind(const WriteSpec& spec, const std::optional<disk::ChunkInfo>& stored) {
  const bool object = present(stored) && stored->object;
  switch (spec.kind) {
    case WriteKind::kPut:
      if (present(stored) && !object)
        return fail(Code::kInvalidArgument, "put: chunk " + to_string(spec.chunk) + " belongs to a file");
      return {};
    case WriteKind::kWrite:
    case WriteKind::kFresh:
    case WriteKind::kTruncate:
    case WriteKind::kPunch:
      if (object)
        return fail(Code::kInvalidArgument, "chunk " + to_string(spec.chunk) +
                                                " belongs to an object: objects are never overwritten");
      if (!carries_bytes(spec.kind) && !present(stored))
        return fail(Code::kNotFound, "no chunk " + to_string(spec.chunk));
      return {};
    case WriteKind::kRemove:
      return {};
    case WriteKind::kReversion:
      if (!stored) return fail(Code::kNotFound, "no chunk " + to_string(spec.chunk));
      return {};
  }
  return {};
}

}  // namespace

rpc::Task<Result<WriteOutcome>> Group::write(WriteSpec spec, rpc::Buffer payload, Deadline deadline) {
  auto view = co_await admit(spec.epoch, Need::kWrite, deadline);
  if (!view) co_return fail(std::move(view.error()));
  auto use = env_.sessions.admit(spec.request.session);
  if (!use) co_return fail(std::move(use.error()));
  auto op = std::make_shared<WriteOp>(env_.runtime, std::move(spec), std::move(payload));
  op->deadline = deadline;
  op->use = std::move(*use);
  if (!env_.tasks.spawn(env_.runtime.executor(), carry_write(shared_from_this(), op)))
    co_return fail(Code::kUnavailable, "the server stops");
  auto waited = co_await op->done.wait(deadline);
  if (waited) co_return op->result;
  auto waiting = WriteOp::Fate::kWaiting;
  if (op->fate.compare_exchange_strong(waiting, WriteOp::Fate::kAbandoned))
    co_return fail(Code::kTimeout,
                   fmt::format("chunk {}: earlier writes did not end in time", to_string(op->spec.chunk)));
  co_return fail(Code::kMaybeApplied, fmt::format("chunk {}: not acknowledged by the whole chain in time",
                                                  to_string(op->spec.chunk)));
}

rpc::Task<> Group::carry_write(std::shared_ptr<Group> self, OpPtr op) {
  auto result = co_await self->order_write(op);
  self->finish(op, std::move(result));
}

rpc::Task<Result<WriteOutcome>> Group::order_write(OpPtr op) {
  WriteSpec& spec = op->spec;
  auto hold = co_await locks_.acquire(spec.chunk, op->deadline);
  if (!hold) co_return fail(std::move(hold.error()));
  auto stored = co_await stored_now(spec.chunk, spec.pool);
  if (!stored) co_return fail(std::move(stored.error()));
  if (spec.kind == WriteKind::kReversion && *stored) {
    spec.request = (*stored)->last_request;  // a retry of that write must still be recognised
    spec.owner = (*stored)->owner_hint;
  } else if (*stored && spec.request.session.valid() &&
             (*stored)->last_request.session == spec.request.session) {
    if ((*stored)->last_request.sequence == spec.request.sequence) co_return outcome_of_stored(**stored);
    if ((*stored)->last_request.sequence > spec.request.sequence)
      co_return fail(
          Code::kStale,
          fmt::format("chunk {}: request {} came after request {} of the same session", to_string(spec.chunk),
                      spec.request.sequence, (*stored)->last_request.sequence));
  }
  CO_TRYV(check_kind(spec, *stored));
  if (carries_bytes(spec.kind)) {
    auto whole = co_await make_whole(op, *stored);
    if (!whole) co_return fail(std::move(whole.error()));
  }
  if (spec.kind == WriteKind::kPut && present(*stored)) {
    const Digest digest = chunk_digest(static_cast<std::uint32_t>(op->payload.size()), spec.checksums);
    if (digest == (*stored)->digest) co_return outcome_of_stored(**stored);
    co_return fail(Code::kExists,
                   fmt::format("chunk {} holds other bytes: stored {}, offered {}", to_string(spec.chunk),
                               to_string((*stored)->digest), to_string(digest)));
  }
  CO_TRYV(begin(op, *stored));
  auto result = co_await replicate(op);
  if (result) {
    env_.counters.writes.fetch_add(1, std::memory_order_relaxed);
    env_.counters.write_bytes.fetch_add(op->payload.size(), std::memory_order_relaxed);
  }
  co_return result;
}

// The chunk as it is stored here; nullopt: this group has none.
rpc::Task<Result<std::optional<disk::ChunkInfo>>> Group::stored_now(ChunkId chunk, PoolId pool) {
  using Found = std::optional<disk::ChunkInfo>;
  {
    std::lock_guard lock(mutex_);
    if (aside_locked(chunk)) co_return Found();
    auto at = recent_.find(chunk);
    if (at != recent_.end()) co_return Found(at->second);
  }
  Target::Work<Found> work = [chunk, pool](disk::ChunkEngine& engine) -> Result<Found> {
    auto info = engine.stat(pool, chunk);
    if (info) return Found(std::move(*info));
    if (info.error().code() == Code::kNotFound) return Found();
    return fail(std::move(info.error()));
  };
  co_return co_await target_.run<Found>(std::move(work));
}

rpc::Task<Result<>> Group::make_whole(OpPtr op, std::optional<disk::ChunkInfo> stored) {
  bool bad_payload = false;
  if (op->payload.size() <= kInlineBytesMax && !needs_stored_bytes(op->spec, op->payload.size(), stored))
    co_return make_whole_blocks(nullptr, op->spec, op->payload, stored, bad_payload);
  for (int attempt = 0;; ++attempt) {
    auto bad = std::make_shared<bool>(false);
    Target::Work<void> work = [op, stored, bad](disk::ChunkEngine& engine) {
      return make_whole_blocks(&engine, op->spec, op->payload, stored, *bad);
    };
    auto whole = co_await target_.run<void>(std::move(work));
    if (whole || whole.error().code() != Code::kCorrupt || *bad || attempt > 0) co_return whole;
    // Only its edges were read: a block in between that is lost comes back with this write.
    const std::uint64_t end = std::uint64_t{op->spec.offset} + op->payload.size();
    for (std::uint64_t edge : {std::uint64_t{op->spec.offset} / kBlockSize, end / kBlockSize}) {
      const BlockRange block{static_cast<std::uint32_t>(edge), static_cast<std::uint32_t>(edge) + 1};
      auto repaired = co_await repair(op->spec.chunk, block, true);
      if (!repaired) co_return fail(std::move(repaired.error()));
    }
  }
}

// Gives the version; from here on the chunk is dirty.
Result<> Group::begin(const OpPtr& op, const std::optional<disk::ChunkInfo>& stored) {
  std::lock_guard lock(mutex_);
  const GroupView view = view_locked();
  if (auto refused = refusal(view, op->spec.epoch, Need::kWrite)) return fail(std::move(*refused));
  if (env_.sessions.ended(op->spec.request.session) && op->spec.kind != WriteKind::kReversion)
    return fail(Code::kSessionEnded,
                "session " + to_string(op->spec.request.session) + " has ended: open a new one");
  const Version version{config_.epoch, counter_ + 1};
  if (stored && stored->version >= version) {
    log_error("version_from_the_future", "group={} chunk={} stored={} next={}", to_string(id_),
              to_string(op->spec.chunk), to_string(stored->version), to_string(version));
    return fail(Code::kInternal,
                fmt::format("chunk {}: version {} is stored, of an epoch that this group has not reached",
                            to_string(op->spec.chunk), to_string(stored->version)));
  }
  if (!note_lease(op->spec))
    return fail(Code::kLeaseLost,
                fmt::format("chunk {}: inode {} was leased to another since generation {}",
                            to_string(op->spec.chunk), to_string(op->spec.owner), to_string(op->spec.lease)));
  auto waiting = WriteOp::Fate::kWaiting;
  if (!op->fate.compare_exchange_strong(waiting, WriteOp::Fate::kBegun))
    return fail(Code::kTimeout, "its client gave up before it began");
  ++counter_;
  op->spec.version = version;
  op->spec.base = stored ? stored->version : Version();
  op->onto = aside_locked(op->spec.chunk) ? Onto::kNothing : Onto::kStored;
  active_.insert_or_assign(op->spec.chunk, op);
  return {};
}

// False: a write under a later lease of the same inode was seen. The mutex is held.
bool Group::note_lease(const WriteSpec& spec) {
  if (!spec.lease.valid() || !spec.owner.valid()) return true;
  constexpr std::size_t kLeasesMax = 4096;
  if (leases_.size() >= kLeasesMax) leases_.clear();
  LeaseGeneration& highest = leases_[spec.owner];
  if (spec.lease < highest) return false;
  highest = spec.lease;
  return true;
}

rpc::Task<Result<WriteOutcome>> Group::reversion(ChunkId chunk, Epoch epoch, Version above,
                                                 Deadline deadline) {
  if (above.epoch >= epoch)
    co_return fail(Code::kInvalidArgument, fmt::format("reversion: version {} is not of an epoch before {}",
                                                       to_string(above), to_string(epoch)));
  WriteSpec spec;
  spec.chunk = chunk;
  spec.pool = id_.pool;
  spec.epoch = epoch;
  spec.kind = WriteKind::kReversion;
  rpc::Buffer nothing;
  auto result = co_await write(std::move(spec), std::move(nothing), deadline);
  co_return result;
}

}  // namespace cairn::chunkserver
