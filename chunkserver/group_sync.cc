// What one member says to "is this version on your disk?".
#include <fmt/format.h>

#include "chunkserver/group.h"

namespace cairn::chunkserver {

rpc::Task<Result<>> Group::prepare_sync(ChunkId chunk, Epoch epoch, Deadline deadline) {
  std::shared_ptr<JoinLedger> ledger;
  bool bring = false;
  {
    std::lock_guard lock(mutex_);
    const GroupView v = view_locked();
    if (epoch == v.epoch && v.place.role == Role::kJoiner && ledger_) {
      if (ledger_->holds(chunk)) co_return Result<>();
      bring = v.place.in_sync < v.min_replicas;
      ledger = ledger_;
    }
  }
  if (!ledger) {
    auto admitted = co_await admit(epoch, Need::kRead, deadline);
    if (!admitted) co_return fail(std::move(admitted.error()));
    co_return Result<>();
  }
  if (!bring) co_return fail(Code::kNotHere, fmt::format("chunk {}: this joiner lacks it", to_string(chunk)));
  co_return co_await copy_chunk(chunk, ledger);
}

Result<> Group::synced(disk::ChunkEngine& engine, ChunkId chunk, Epoch epoch, Version version) {
  Epoch reconciled_at;
  {
    std::lock_guard lock(mutex_);
    if (config_.epoch != epoch) return fail(wrong_epoch(epoch, config_.epoch));
    reconciled_at = reconciled_at_;
    if (aside_locked(chunk))
      return fail(Code::kLostUnsynced, fmt::format("chunk {} is not known to this group", to_string(chunk)));
  }
  auto stored = engine.stat(id_.pool, chunk);
  if (!stored && stored.error().code() != Code::kNotFound) return fail(std::move(stored.error()));
  const Version have = stored ? stored->version : Version();
  // After a loss a later write has a higher version, but stands on bytes from before the lost one.
  const bool lost = have < version || (have != version && version.epoch < reconciled_at);
  if (!lost) return {};
  return fail(Code::kLostUnsynced,
              fmt::format("chunk {}: version {} was lost before it was synced, {} is stored",
                          to_string(chunk), to_string(version), to_string(have)));
}

}  // namespace cairn::chunkserver
