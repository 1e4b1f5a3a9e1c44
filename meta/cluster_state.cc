#include "meta/cluster_state.h"

#include <algorithm>
#include <set>

namespace cairn::meta {
namespace {

template <class Record, class Visit>
Result<> load_records(Txn& txn, KeyPrefix prefix, std::string_view what, Visit visit) {
  Result<> outcome;
  auto read = [&](std::string_view key, std::string_view value) {
    auto record = Record::decode(value);
    if (record)
      outcome = visit(key, std::move(*record));
    else
      outcome = std::unexpected(record.error());
    if (!outcome) outcome = fail(outcome.error().with(std::string(what) + " in the metadata store"));
    return outcome.has_value();
  };
  TRYV(txn.scan(prefix_key(prefix), {}, read));
  return outcome;
}

}  // namespace

std::string_view name_of(Liveness liveness) {
  switch (liveness) {
    case Liveness::kUnknown:
      return "suspect";  // not heard of since the start
    case Liveness::kUp:
      return "up";
    case Liveness::kSuspect:
      return "suspect";
    case Liveness::kDead:
      return "dead";
  }
  return "dead";
}

std::string_view name_of(TargetCondition condition) {
  switch (condition) {
    case TargetCondition::kOk:
      return "ok";
    case TargetCondition::kNearFull:
      return "near_full";
    case TargetCondition::kFull:
      return "full";
    case TargetCondition::kFailed:
      return "failed";
    case TargetCondition::kReadOnly:
      return "read_only";
    case TargetCondition::kSlow:
      return "slow";
  }
  return "failed";
}

Result<ClusterState> ClusterState::load(Txn& txn, TimePoint now) {
  ClusterState state;
  state.started = now;
  TRYV(load_records<ServerRecord>(txn, KeyPrefix::kServer, "server",
                                  [&](std::string_view, ServerRecord record) {
                                    const ServerId id = record.id;
                                    state.servers[id].purges = record.purges_done;
                                    state.servers[id].record = std::move(record);
                                    return Result<>();
                                  }));
  TRYV(load_records<TargetRecord>(txn, KeyPrefix::kTarget, "target",
                                  [&](std::string_view, TargetRecord record) {
                                    state.targets[record.id].record = record;
                                    return Result<>();
                                  }));
  TRYV(load_records<PoolRecord>(txn, KeyPrefix::kPool, "pool", [&](std::string_view, PoolRecord record) {
    const PoolId id = record.id;
    state.pools[id] = std::move(record);
    return Result<>();
  }));
  TRYV(load_records<GroupRecord>(
      txn, KeyPrefix::kGroup, "group", [&](std::string_view key, GroupRecord record) -> Result<> {
        TRY(GroupId id, group_of_key(key));
        if (!state.pools.contains(id.pool))
          return fail(Code::kCorrupt, "group " + to_string(id) + " belongs to a pool that does not exist");
        state.groups[id].record = std::move(record);
        return {};
      }));
  return state;
}

const ClusterServer* ClusterState::server_of(TargetId target) const {
  auto found = targets.find(target);
  if (found == targets.end()) return nullptr;
  auto server = servers.find(found->second.record.server);
  return server == servers.end() ? nullptr : &server->second;
}

Fitness ClusterState::fitness(TargetId target) const {
  const ClusterServer* server = server_of(target);
  if (server == nullptr) return Fitness::kLost;
  const ClusterTarget& known = targets.at(target);
  if (known.record.lost) return Fitness::kLost;
  switch (server->liveness) {
    case Liveness::kUnknown:
      return Fitness::kUnknown;
    case Liveness::kDead:
      return Fitness::kDown;
    case Liveness::kUp:
    case Liveness::kSuspect:
      break;
  }
  return known.condition == TargetCondition::kFailed ? Fitness::kFailed : Fitness::kFit;
}

bool ClusterState::evacuating(TargetId target) const {
  const ClusterServer* server = server_of(target);
  return server == nullptr || server->record.draining || read_only(target);
}

bool ClusterState::read_only(TargetId target) const {
  auto found = targets.find(target);
  return found != targets.end() && found->second.condition == TargetCondition::kReadOnly;
}

std::uint64_t ClusterState::boot_of(TargetId target) const {
  const ClusterServer* server = server_of(target);
  return server == nullptr ? 0 : server->record.boot;
}

std::string ClusterState::domain_of(const PoolRecord& pool, TargetId target) const {
  const ClusterServer* server = server_of(target);
  if (server == nullptr) return "lost:" + to_string(target);
  return failure_domain_of(pool.failure_domain, target, server->record.id, server->record.labels);
}

bool ClusterState::serving(const GroupMember& member) const {
  return member.in_sync && !member.restarted && fitness(member.target) == Fitness::kFit &&
         boot_of(member.target) == member.boot;
}

bool ClusterState::waiting(const GroupRecord& group) const {
  if (!group.reconcile) return false;
  return !std::ranges::all_of(group.members, [&](const GroupMember& member) {
    return !member.in_sync ||
           (fitness(member.target) == Fitness::kFit && boot_of(member.target) == member.boot);
  });
}

std::size_t ClusterState::domains(const PoolRecord& pool) const {
  std::set<std::string> names;
  for (const auto& [id, target] : targets)
    if (!target.record.lost && !target.record.retired && server_of(id) != nullptr)
      names.insert(domain_of(pool, id));
  return names.size();
}

PlacementMap ClusterState::placement_map(const PoolRecord& pool, std::uint32_t near_full_percent) const {
  std::vector<PlacementTarget> candidates;
  for (const auto& [id, target] : targets) {
    PlacementTarget candidate;
    candidate.id = id;
    candidate.domain = domain_of(pool, id);
    candidate.weight = std::max(1.0, static_cast<double>(target.record.capacity_bytes) / (1 << 20));
    const bool full = target.condition == TargetCondition::kNearFull ||
                      target.condition == TargetCondition::kFull ||
                      static_cast<double>(target.used_bytes) * 100 >
                          static_cast<double>(target.record.capacity_bytes) * near_full_percent;
    candidate.accepts = fitness(id) == Fitness::kFit && !evacuating(id) && !full;
    candidates.push_back(std::move(candidate));
  }
  PlacementMap map(std::move(candidates));
  for (const auto& [id, group] : groups) {
    if (id.pool != pool.id) continue;
    std::vector<TargetId> members;
    for (const GroupMember& member : group.record.members)
      if (member.target != group.record.leaving) members.push_back(member.target);
    map.add_group(members);
  }
  return map;
}

bool ClusterState::refresh_liveness(TimePoint now, Duration lease, Duration suspect) {
  bool changed = false;
  for (auto& [id, server] : servers) {
    Liveness next = Liveness::kUp;
    if (!server.registered)
      // Our predecessor may have given it a lease just before it ended.
      next = now < started + lease ? Liveness::kUnknown : Liveness::kDead;
    else if (server.refused || now >= server.heard + lease)
      next = Liveness::kDead;
    else if (now >= server.heard + suspect)
      next = Liveness::kSuspect;
    if (next == server.liveness) continue;
    if (next == Liveness::kDead) {
      server.down_since = now;
      server.death_published = false;
    }
    server.liveness = next;
    changed = true;
  }
  return changed;
}

}  // namespace cairn::meta
