#include "chunkserver/group.h"

#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/joiner.h"
#include "chunkserver/reconciler.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kAdmitWaitMax = std::chrono::seconds(3);
constexpr std::uint8_t kGroupFormat = 1;

}  // namespace

Group::Group(GroupId id, Target& target, GroupMemory& memory, GroupEnv& env, std::vector<ChunkId> aside)
    : id_(id),
      target_(target),
      memory_(memory),
      env_(env),
      past_(memory.before_start(id)),
      locks_(env.runtime),
      changed_(std::make_shared<rpc::Event>(env.runtime)),
      reconciled_at_(past_.reconciled_at),
      aside_(aside.begin(), aside.end()) {
  config_.id = id;
}

void Group::configure(const GroupConfig& config) {
  std::unique_lock lock(mutex_);
  drops_stopped_ = false;
  if (config.epoch < config_.epoch || config.epoch < past_.epoch) {
    log_warn("epoch_refused", "group={} target={} epoch={} have={}", to_string(id_), to_string(target_.id()),
             to_string(config.epoch), to_string(std::max(config_.epoch, past_.epoch)));
    return;
  }
  apply_place(lock, config);
}

void Group::leave(Epoch epoch) {
  std::unique_lock lock(mutex_);
  if (epoch < config_.epoch) return;
  GroupConfig config = config_;
  config.epoch = epoch;
  config.members.clear();
  apply_place(lock, config);
}

void Group::apply_place(std::unique_lock<std::mutex>& lock, const GroupConfig& config) {
  const bool new_epoch = config.epoch > config_.epoch;
  Place place = place_of(config, target_.id());
  // Versions must not be given twice, and what this process did not see of that epoch it cannot roll forward.
  if (place.role == Role::kInSync && config.epoch <= past_.epoch) place = Place{.role = Role::kBooted};
  const bool reconcile_before = config_.reconcile && !new_epoch;
  config_ = config;
  place_ = place;
  if (config.reconcile) reconciled_at_ = std::max(reconciled_at_, config.epoch);
  if (new_epoch) {
    counter_ = 0;
    recent_.clear();
    rest_available_ = 0;
    ledger_.reset();
    reconciling_.reset();
  }
  std::shared_ptr<JoinLedger> join;
  if (place.role == Role::kJoiner && !ledger_) join = ledger_ = std::make_shared<JoinLedger>();
  const bool reconcile = config.reconcile && place.role == Role::kInSync && place.head && !reconcile_before;
  if (reconcile)
    reconciling_ = GroupProgress{.epoch = config.epoch, .state = GroupProgress::State::kReconciling};
  auto changed = std::exchange(changed_, std::make_shared<rpc::Event>(env_.runtime));
  lock.unlock();
  changed->set();
  log_debug("group_configured",
            "group={} target={} epoch={} role={} head={} members={} barrier={} reconcile={}", to_string(id_),
            to_string(target_.id()), to_string(config.epoch), static_cast<int>(place.role), place.head,
            config.members.size(), config.barrier, config.reconcile);
  if (join) env_.tasks.spawn(env_.runtime.make_strand(), Joiner::run(shared_from_this(), join));
  if (reconcile) env_.tasks.spawn(env_.runtime.make_strand(), Reconciler::run(shared_from_this(), config));
}

GroupView Group::view_locked() const {
  GroupView view;
  view.epoch = config_.epoch;
  view.place = place_;
  view.open = !config_.barrier && !config_.reconcile;
  view.reconcile = config_.reconcile;
  view.slots = config_.slots;
  view.min_replicas = config_.min_replicas;
  view.changed = changed_;
  if (target_.failed()) view.place = Place();
  return view;
}

GroupView Group::view() const {
  std::lock_guard lock(mutex_);
  return view_locked();
}

Epoch Group::reconciled_at() const {
  std::lock_guard lock(mutex_);
  return reconciled_at_;
}

std::size_t Group::aside_count() const {
  std::lock_guard lock(mutex_);
  return aside_.size();
}

std::optional<GroupProgress> Group::progress() const {
  std::lock_guard lock(mutex_);
  if (reconciling_) return reconciling_;
  if (!ledger_) return std::nullopt;
  GroupProgress progress;
  progress.epoch = config_.epoch;
  switch (ledger_->state) {
    case JoinLedger::State::kCopying:
      progress.state = GroupProgress::State::kCopying;
      break;
    case JoinLedger::State::kCaughtUp:
      progress.state = GroupProgress::State::kCaughtUp;
      break;
    case JoinLedger::State::kFailed:
      progress.state = GroupProgress::State::kFailed;
      break;
  }
  progress.chunks_left = ledger_->chunks_left();
  progress.bytes_left = ledger_->bytes_left();
  progress.bytes_copied = ledger_->bytes_copied;
  return progress;
}

Error Group::wrong_epoch(Epoch theirs, Epoch mine) const {
  return Error(Code::kWrongEpoch,
               fmt::format("group {} is in epoch {} here, not {}: refresh the routing table", to_string(id_),
                           to_string(mine), to_string(theirs)));
}

std::optional<Error> Group::refusal(const GroupView& view, Epoch epoch, Need need) const {
  if (target_.failed())
    return Error(Code::kNotServing, fmt::format("group {}: disk {} failed", to_string(id_), target_.path()));
  if (epoch != view.epoch) return wrong_epoch(epoch, view.epoch);
  if (view.place.role != Role::kInSync) {
    const Code code = need == Need::kRead ? Code::kNotHere : Code::kNotServing;
    return Error(code, fmt::format("group {}: this member is not in sync", to_string(id_)));
  }
  if (!env_.lease.valid())
    return Error(Code::kNotServing,
                 fmt::format("group {}: no lease from the metadata server, this server does not serve",
                             to_string(id_)));
  if (need == Need::kWrite && !view.place.head)
    return Error(Code::kNotServing,
                 fmt::format("group {}: writes go to the head of the chain", to_string(id_)));
  if (!view.open)
    return Error(Code::kNotServing,
                 fmt::format("group {}: {}", to_string(id_),
                             view.reconcile ? "all members restarted and are being compared"
                                            : "a removed member may still be serving"));
  if (need == Need::kWrite && view.place.writable < view.min_replicas)
    return Error(Code::kDegraded, fmt::format("group {}: {} of at least {} copies can be written",
                                              to_string(id_), view.place.writable, view.min_replicas));
  return std::nullopt;
}

rpc::Task<Result<GroupView>> Group::admit(Epoch epoch, Need need, Deadline deadline) {
  const Deadline limit = std::min(deadline, Deadline::after(env_.runtime.clock(), kAdmitWaitMax));
  bool asked = false;
  for (;;) {
    GroupView view = this->view();
    std::optional<Error> refused = refusal(view, epoch, need);
    if (!refused) co_return view;
    const bool behind = refused->code() == Code::kWrongEpoch && epoch > view.epoch;
    const bool closed =
        refused->code() == Code::kNotServing && view.place.role == Role::kInSync && !view.open;
    const bool short_of_members = refused->code() == Code::kDegraded;
    if (!behind && !closed && !short_of_members) co_return fail(std::move(*refused));
    if (behind && !std::exchange(asked, true)) env_.heartbeat_now();
    auto changed = view.changed;
    auto waited = co_await changed->wait(short_of_members ? deadline : limit);
    if (!waited) co_return fail(std::move(*refused));
  }
}

Group::OpPtr Group::active_op(const ChunkId& chunk) const {
  std::lock_guard lock(mutex_);
  auto at = active_.find(chunk);
  return at == active_.end() ? nullptr : at->second;
}

// --- chunks set aside ---
// value = version u8 (1) | count u32 | count * (data id u64, index u32, shard u16)

std::string aside_prefix() {
  return "aside/";
}

std::string Group::aside_key() const {
  return aside_prefix() + to_string(id_);
}

std::string Group::encode_chunks(const std::vector<ChunkId>& chunks) {
  std::string out;
  ByteWriter writer(out);
  writer.u8(kGroupFormat);
  writer.u32(static_cast<std::uint32_t>(chunks.size()));
  for (const ChunkId& chunk : chunks) {
    writer.u64(chunk.data.value());
    writer.u32(chunk.index);
    writer.u16(chunk.shard);
  }
  return out;
}

Result<std::vector<ChunkId>> decode_aside(std::string_view bytes) {
  ByteReader reader(bytes);
  const std::uint8_t format = reader.u8();
  const std::uint32_t count = reader.u32();
  std::vector<ChunkId> chunks;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    ChunkId chunk;
    chunk.data = DataId(reader.u64());
    chunk.index = reader.u32();
    chunk.shard = reader.u16();
    chunks.push_back(chunk);
  }
  if (format != kGroupFormat || !reader.done())
    return fail(Code::kCorrupt, "a list of chunks set aside does not decode");
  return chunks;
}

void Group::no_longer_aside(disk::ChunkEngine& engine, const ChunkId& chunk) {
  std::vector<ChunkId> left;
  {
    std::lock_guard lock(mutex_);
    if (aside_.erase(chunk) == 0) return;
    left.assign(aside_.begin(), aside_.end());
  }
  // Before the write is acknowledged: after a restart the chunk would else be taken for one that nobody
  // knows.
  if (auto kept = engine.set_value(aside_key(), encode_chunks(left)); !kept) target_.note(kept.error());
}

}  // namespace cairn::chunkserver
