// The other members: take a version from the predecessor, apply it and pass it on. A joiner brings the chunk
// first.
#include <fmt/format.h>

#include "chunkserver/copy_in.h"
#include "chunkserver/group.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kEpochWaitMax = std::chrono::seconds(1);

}  // namespace

rpc::Task<Result<WriteOutcome>> Group::forward(WriteSpec spec, rpc::Buffer payload, Deadline deadline) {
  if (!spec.version.valid() || spec.version.epoch > spec.epoch)
    co_return fail(Code::kInvalidArgument,
                   "forward: version " + to_string(spec.version) + " under epoch " + to_string(spec.epoch));
  const Deadline limit = std::min(deadline, Deadline::after(env_.runtime.clock(), kEpochWaitMax));
  OpPtr op;
  bool mine = false;
  bool asked = false;
  while (!op) {
    std::shared_ptr<rpc::Event> changed;
    {
      std::lock_guard lock(mutex_);
      const GroupView v = view_locked();
      if (target_.failed()) co_return fail(Code::kNotServing, "disk " + target_.path() + " failed");
      if (spec.epoch < v.epoch) co_return fail(wrong_epoch(spec.epoch, v.epoch));
      if (spec.epoch == v.epoch) {
        const bool takes = v.place.role == Role::kJoiner || (v.place.role == Role::kInSync && !v.place.head);
        if (!takes || v.reconcile || !env_.lease.valid())
          co_return fail(Code::kNotServing,
                         fmt::format("group {}: this member takes no hops now", to_string(id_)));
        auto [at, fresh] = active_.try_emplace(spec.chunk);
        if (fresh) {
          note_lease(spec);  // hops are not refused for it: a pending version has to reach the end
          at->second = std::make_shared<WriteOp>(env_.runtime, std::move(spec), std::move(payload));
          mine = true;
        } else if (at->second->spec.version != spec.version) {
          co_return fail(Code::kBusyPending,
                         fmt::format("chunk {}: version {} is pending", to_string(spec.chunk),
                                     to_string(at->second->spec.version)));
        }
        op = at->second;
      }
      changed = v.changed;
    }
    if (op) break;
    if (!std::exchange(asked, true)) env_.heartbeat_now();
    auto waited = co_await changed->wait(limit);
    if (!waited) co_return fail(wrong_epoch(spec.epoch, view().epoch));
  }
  if (mine) {
    op->fate = WriteOp::Fate::kBegun;
    op->use = env_.sessions.hop(op->spec.request.session);
    if (!env_.tasks.spawn(env_.runtime.executor(), carry_hop(shared_from_this(), op))) {
      finish(op, fail(Code::kUnavailable, "the server stops"));
      co_return op->result;
    }
  }
  auto waited = co_await op->done.wait(deadline);
  if (!waited) co_return fail(std::move(waited.error()));
  co_return op->result;
}

rpc::Task<> Group::carry_hop(std::shared_ptr<Group> self, OpPtr op) {
  auto result = co_await self->take_hop(op);
  self->finish(op, std::move(result));
}

rpc::Task<Result<WriteOutcome>> Group::take_hop(OpPtr op) {
  auto hold = co_await locks_.acquire(op->spec.chunk, Deadline::never());
  if (!hold) co_return fail(std::move(hold.error()));
  std::shared_ptr<JoinLedger> ledger;
  {
    std::lock_guard lock(mutex_);
    ledger = ledger_;
    if (aside_locked(op->spec.chunk)) op->onto = Onto::kNothing;
  }
  if (ledger) {
    auto result = co_await take_hop_as_joiner(op, ledger);
    co_return result;
  }
  auto result = co_await replicate(op);
  co_return result;
}

rpc::Task<Result<WriteOutcome>> Group::take_hop_as_joiner(OpPtr op, std::shared_ptr<JoinLedger> ledger) {
  const ChunkId chunk = op->spec.chunk;
  bool held = false;
  std::optional<GroupMember> source;
  {
    std::lock_guard lock(mutex_);
    held = ledger->holds(chunk);
    source = place_.source;
  }
  const bool from_nothing = replaces_all(op->spec.kind) || !op->spec.base.valid();
  if (from_nothing) op->onto = Onto::kNothing;
  Result<> done;
  if (held || from_nothing) {
    done = co_await apply_here(op);
  } else if (source) {
    done = co_await pull(op, *source);
  } else {
    done = fail(Code::kNotHere, "nobody to copy from");
  }
  {
    std::lock_guard lock(mutex_);
    if (done) {
      aside_.erase(chunk);
      if (ledger_ == ledger) ledger->held(chunk);
    } else {
      // A joiner that has said that it is complete must not lack anything: then it is an error as anywhere
      // else.
      if (ledger_ == ledger && ledger->state == JoinLedger::State::kCaughtUp)
        co_return fail(std::move(done.error()));
      ledger->missing(chunk, op->payload.size());
    }
  }
  if (!done)
    co_return fail(Code::kNotHere, fmt::format("joiner of group {} could not take chunk {}: {}",
                                               to_string(id_), to_string(chunk), done.error().to_string()));
  auto result =
      co_await replicate(op);  // applied: this only passes it on, should the joiner be in sync by now
  co_return result;
}

rpc::Task<Result<>> Group::pull(OpPtr op, GroupMember source) {
  auto grant = co_await env_.copies.take(1, Deadline::never());
  if (!grant) co_return fail(std::move(grant.error()));
  const Deadline deadline = Deadline::after(env_.runtime.clock(), std::chrono::seconds(5));
  auto fetched = co_await fetch_from(source, op->spec.chunk, view().epoch, deadline);
  if (!fetched && fetched.error().code() != Code::kNotFound) co_return fail(std::move(fetched.error()));
  const Version found = fetched ? fetched->info.version : Version();
  FetchedChunk copy;
  if (fetched && found >= op->spec.version) {
    copy = std::move(*fetched);
  } else {
    if (found != op->spec.base)
      co_return fail(Code::kStale, fmt::format("chunk {}: version {} stands on {}, but the source has {}",
                                               to_string(op->spec.chunk), to_string(op->spec.version),
                                               to_string(op->spec.base), to_string(found)));
    const bool present = fetched && fetched->info.state == disk::ChunkState::kPresent;
    std::string content = present ? std::string(as_text(fetched->bytes.bytes())) : std::string();
    content = apply_to_bytes(std::move(content), op->spec, op->payload.bytes());
    copy.info.chunk = op->spec.chunk;
    copy.info.pool = op->spec.pool;
    copy.info.version = op->spec.version;
    copy.info.last_request = op->spec.request;
    copy.info.owner_hint = op->spec.owner;
    copy.info.object = op->spec.kind == WriteKind::kPut ||
                       (op->spec.kind == WriteKind::kReversion && fetched && fetched->info.object);
    const bool absent =
        op->spec.kind == WriteKind::kRemove || (op->spec.kind == WriteKind::kReversion && !present);
    copy.info.state = absent ? disk::ChunkState::kAbsent : disk::ChunkState::kPresent;
    copy.bytes = rpc::Buffer::take(std::move(content));
    copy.info.length = static_cast<std::uint32_t>(copy.bytes.size());
    copy.checksums = block_checksums(copy.bytes.bytes());
    copy.info.digest = chunk_digest(copy.info.length, copy.checksums);
  }
  Target::Work<void> work = [self = shared_from_this(), op,
                             copy = std::move(copy)](disk::ChunkEngine& engine) -> Result<> {
    TRY(auto installed, install_copy(engine, copy));
    if (!installed.done)
      return fail(Code::kStale, "chunk " + to_string(op->spec.chunk) + ": a higher version is stored here");
    self->no_longer_aside(engine, op->spec.chunk);
    if (op->spec.durable) TRYV(engine.sync());
    op->local = engine.stat(copy.info.pool, copy.info.chunk);
    if (!op->local) return fail(op->local.error());
    return {};
  };
  auto installed = co_await target_.run_durable<void>(std::move(work));
  if (installed) {
    op->applying = true;
    op->applied.set();
  }
  co_return installed;
}

}  // namespace cairn::chunkserver
