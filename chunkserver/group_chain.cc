// What every member does with a version: apply it, pass it on, and call it committed when both are done.
#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/group.h"
#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

// With more space than this on every target of the chain a write is applied and passed on at the same time.
// With less, it is applied only when the rest of the chain took it, so that a full disk refuses it before
// anyone stored it.
constexpr std::uint64_t kAmpleBytes = 128 << 20;
constexpr std::uint64_t kSpareBytes = 8 << 20;
constexpr Duration kHopTimeout = std::chrono::seconds(5);
constexpr Duration kPauseMin = std::chrono::milliseconds(5);
constexpr Duration kPauseMax = std::chrono::milliseconds(250);
constexpr Duration kWarnEvery = std::chrono::seconds(5);

// Sending it again would not help.
bool is_definite(Code code) {
  return code == Code::kNoSpace || code == Code::kCorrupt || code == Code::kInvalidArgument ||
         code == Code::kExists || code == Code::kRange;
}

// The engine will not do this to what is stored: nothing changed, and no attempt ends otherwise.
bool is_refusal(Code code) {
  return code == Code::kInvalidArgument || code == Code::kExists || code == Code::kRange;
}
bool refused_here(const WriteOp& op) {
  return op.applied.is_set() && !op.local && is_refusal(op.local.error().code());
}

}  // namespace

bool Group::low_on_space(const WriteOp& op) const {
  if (!carries_bytes(op.spec.kind)) return false;
  std::lock_guard lock(mutex_);
  return place_.successor && (rest_available_ < kAmpleBytes || target_.available() < kAmpleBytes);
}

void Group::start_apply(const OpPtr& op) {
  op->applying = true;
  op->applied.reset();
  auto work = [self = shared_from_this(), op](disk::ChunkEngine& engine) {
    op->local = apply_write(engine, op->spec, op->payload.bytes(), op->onto);
    if (op->local) {
      self->target_.wrote(op->payload.size());
      if (op->onto == Onto::kNothing) self->no_longer_aside(engine, op->spec.chunk);
    } else {
      self->target_.note(op->local.error());
    }
    op->applied.set();
  };
  const auto wait = op->spec.durable ? Target::Wait::kForSync : Target::Wait::kNo;
  if (!target_.post(wait, std::move(work))) {
    op->local = fail(Code::kOverloaded, "the disk's queue is full");
    op->applied.set();
  }
}

// Applies it, however long it takes, once another member may have it. Before that an error means that nothing
// has it.
rpc::Task<Result<>> Group::apply_here(OpPtr op) {
  TimePoint warned{};
  for (;;) {
    if (!op->applying) start_apply(op);
    auto waited = co_await op->applied.wait(Deadline::never());
    if (!waited) co_return fail(Code::kMaybeApplied, "the server stops");
    if (op->local) co_return Result<>();
    op->applying = false;
    const Error error = op->local.error();
    const GroupView v = view();
    if (v.place.role == Role::kOut || v.place.role == Role::kBooted)
      co_return fail(Code::kMaybeApplied,
                     fmt::format("group {}: this member left the group", to_string(id_)));
    const bool alone = !v.place.source && !v.place.successor;
    const bool refused = is_refusal(error.code());
    const bool rest_has_it = op->rest.version.valid();
    // Members hold the same, so the rest of the chain refuses it too: it did not happen anywhere.
    if (refused && !rest_has_it) co_return fail(error);
    if (!alone && (refused || error.code() == Code::kCorrupt || error.code() == Code::kStale)) {
      // What is stored here is damaged, or not what the version stands on: take the neighbour's.
      auto pulled = co_await pull(op, v.place.source ? *v.place.source : *v.place.successor);
      if (pulled) {
        const bool strange = refused || (error.code() == Code::kStale && v.place.role == Role::kInSync);
        const auto level = strange ? LogLevel::kError : LogLevel::kWarn;
        log_at(level, "chunk_pulled", "group={} chunk={} version={} why={}", to_string(id_),
               to_string(op->spec.chunk), to_string(op->spec.version), log_quote(error.message()));
        co_return Result<>();
      }
    }
    if (!op->sent) co_return fail(error);
    const TimePoint now = env_.runtime.clock().now();
    if (now - warned > kWarnEvery) {
      warned = now;
      log_warn("write_waits", "group={} chunk={} version={} error={}", to_string(id_),
               to_string(op->spec.chunk), to_string(op->spec.version), log_quote(error.to_string()));
    }
    auto changed = v.changed;
    auto paused = co_await changed->wait(Deadline::after(env_.runtime.clock(), kPauseMax));
    if (!paused && paused.error().code() == Code::kCancelled)
      co_return fail(Code::kMaybeApplied, "the server stops");
  }
}

// Ends when the rest of the chain has the version under the epoch returned, or with what must stop the write.
rpc::Task<Result<Epoch>> Group::pass_on(OpPtr op) {
  Duration pause = kPauseMin;
  TimePoint warned = env_.runtime.clock().now();
  for (;;) {
    const GroupView v = view();
    const Place& place = v.place;
    if (place.role == Role::kOut || place.role == Role::kBooted)
      co_return fail(Code::kMaybeApplied,
                     fmt::format("group {}: this member left the group", to_string(id_)));
    if (place.role == Role::kJoiner) co_return v.epoch;
    std::string why;
    const bool short_of_members = place.head && place.writable < v.min_replicas;
    const bool ready = v.open && !short_of_members && env_.lease.valid();
    if (ready && !place.successor) co_return v.epoch;
    if (ready) {
      const GroupMember to = *place.successor;
      op->sent = true;
      rpc::OutMessage message = forward_message(op->spec, v.epoch, to.target, op->payload);
      const Deadline deadline = Deadline::after(env_.runtime.clock(), kHopTimeout);
      auto reply = co_await env_.peers.call<rpc::method::Forward>(to.server, Peers::Link::kChain,
                                                                  std::move(message), deadline);
      if (reply) {
        const WriteOutcome rest = outcome_of(**reply);
        std::lock_guard lock(mutex_);
        if (config_.epoch == v.epoch) {
          rest_available_ = rest.available;
          op->rest = rest;
          co_return v.epoch;
        }
        continue;
      }
      const Code code = reply.error().code();
      const bool joins = !to.in_sync;
      // A joiner that knows that it lacks the chunk copies it later; it does not hold up what has copies
      // enough.
      if (joins && code == Code::kNotHere && place.in_sync >= v.min_replicas) co_return v.epoch;
      if (is_definite(code) && (!op->applying || refused_here(*op)) && view().epoch == v.epoch)
        co_return fail(std::move(reply.error()));
      if (code == Code::kWrongEpoch) env_.heartbeat_now();
      why = reply.error().to_string();
    }
    const TimePoint now = env_.runtime.clock().now();
    if (now - warned > kWarnEvery) {
      warned = now;
      log_warn("hop_waits", "group={} chunk={} version={} epoch={} open={} members={} error={}",
               to_string(id_), to_string(op->spec.chunk), to_string(op->spec.version), to_string(v.epoch),
               v.open, place.writable, log_quote(why));
    }
    auto changed = v.changed;
    auto paused = co_await changed->wait(Deadline::after(env_.runtime.clock(), pause));
    if (!paused && paused.error().code() == Code::kCancelled)
      co_return fail(Code::kMaybeApplied, "the server stops");
    pause = std::min(pause * 2, kPauseMax);
  }
}

rpc::Task<Result<WriteOutcome>> Group::replicate(OpPtr op) {
  if (op->applying) {
    // A joiner has it already.
  } else if (low_on_space(*op)) {
    if (target_.available() < op->payload.size() + kSpareBytes) {
      // A hop may come again after its answer was lost: what is stored needs no room.
      CO_TRY(const auto stored, co_await stored_now(op->spec.chunk, op->spec.pool));
      if (!stored || stored->version < op->spec.version)
        co_return fail(Code::kNoSpace,
                       fmt::format("target {} ({}) is full", to_string(target_.id()), target_.path()));
    }
  } else {
    start_apply(op);
  }
  auto passed = co_await pass_on(op);
  if (!passed && !op->applying) co_return fail(std::move(passed.error()));
  auto applied = co_await apply_here(op);
  if (!passed) co_return fail(std::move(passed.error()));
  if (!applied) co_return fail(std::move(applied.error()));
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (config_.epoch == *passed) {
        const disk::ChunkInfo& info = *op->local;
        active_.erase(op->spec.chunk);
        if (place_.head) {
          constexpr std::size_t kRecentMax = 256;
          if (recent_.size() >= kRecentMax) recent_.clear();
          recent_.insert_or_assign(op->spec.chunk, info);
        }
        if (op->rest.version == info.version && op->rest.digest != info.digest) {
          env_.counters.replica_differs.fetch_add(1);
          log_error("replica_differs", "group={} chunk={} version={} here={} there={}", to_string(id_),
                    to_string(op->spec.chunk), to_string(info.version), to_string(info.digest),
                    to_string(op->rest.digest));
        }
        const std::uint64_t rest = place_.successor ? rest_available_ : UINT64_MAX;
        co_return WriteOutcome{info.version, info.digest, info.length, std::min(rest, target_.available()),
                               op->spec.base};
      }
    }
    passed = co_await pass_on(op);
    if (!passed) co_return fail(std::move(passed.error()));
  }
}

void Group::finish(const OpPtr& op, Result<WriteOutcome> result) {
  {
    std::lock_guard lock(mutex_);
    auto at = active_.find(op->spec.chunk);
    if (at != active_.end() && at->second == op) active_.erase(at);
  }
  op->result = std::move(result);
  op->use = SessionFence::Use();
  op->done.set();
}

}  // namespace cairn::chunkserver
