#include "chunkserver/group_table.h"

#include <mutex>

namespace cairn::chunkserver {

Result<std::shared_ptr<Group>> GroupTable::find(GroupId id, TargetId target, Prefer prefer) const {
  const auto members = of(id);
  std::shared_ptr<Group> best;
  for (const auto& group : members) {
    if (target.valid() && group->target().id() != target) continue;
    if (!best) best = group;
    if (members.size() == 1 || target.valid()) break;
    const Place place = group->view().place;
    if (place.role == Role::kInSync && (prefer == Prefer::kInSync || place.head)) best = group;
  }
  if (best) return best;
  return fail(Code::kWrongEpoch,
              "this server has no member of group " + to_string(id) + ": refresh the routing table");
}

Result<std::shared_ptr<Group>> GroupTable::find(PoolId pool, const ChunkId& chunk, TargetId target,
                                                Prefer prefer) const {
  const std::uint32_t count = slots(pool);
  if (count == 0)
    return fail(Code::kWrongEpoch, "this server does not know pool " + std::to_string(pool.value()) + " yet");
  return find(GroupId{pool, slot_of(placement_hash(chunk), count)}, target, prefer);
}

void GroupTable::set_slots(PoolId pool, std::uint32_t slots) {
  std::unique_lock lock(mutex_);
  slots_[pool] = slots;
}

std::uint32_t GroupTable::slots(PoolId pool) const {
  std::shared_lock lock(mutex_);
  auto at = slots_.find(pool);
  return at == slots_.end() ? 0 : at->second;
}

void GroupTable::add(std::shared_ptr<Group> group) {
  std::unique_lock lock(mutex_);
  groups_[group->id()].push_back(std::move(group));
}

std::shared_ptr<Group> GroupTable::get(GroupId id, TargetId target) const {
  for (const auto& group : of(id))
    if (group->target().id() == target) return group;
  return nullptr;
}

std::vector<std::shared_ptr<Group>> GroupTable::of(GroupId id) const {
  std::shared_lock lock(mutex_);
  auto at = groups_.find(id);
  return at == groups_.end() ? std::vector<std::shared_ptr<Group>>() : at->second;
}

std::vector<std::shared_ptr<Group>> GroupTable::all() const {
  std::shared_lock lock(mutex_);
  std::vector<std::shared_ptr<Group>> out;
  for (const auto& [id, members] : groups_) out.insert(out.end(), members.begin(), members.end());
  return out;
}

}  // namespace cairn::chunkserver
