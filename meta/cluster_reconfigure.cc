#include "meta/cluster_reconfigure.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "meta/repair_planner.h"
#include "store/base/log.h"

namespace cairn::meta {
namespace {

// Takes an id for the step only if something changes: most steps change nothing.
class StepVersion {
 public:
  explicit StepVersion(Txn& txn) : txn_(txn) {}
  std::uint64_t get() {
    if (value_ == 0) value_ = txn_.next_id();
    return value_;
  }

 private:
  Txn& txn_;
  std::uint64_t value_ = 0;
};

class Step {
 public:
  Step(ClusterState& state, Txn& txn, const ClusterConfig& config, TimePoint now, Rng& rng)
      : state_(state), txn_(txn), config_(config), now_(now), rng_(rng), version_(txn) {}

  Reconfiguration run(const std::shared_ptr<const RoutingTable>& shown) {
    Reconfiguration out;
    state_.refresh_liveness(now_, config_.lease, config_.suspect);
    lay_out();
    plan();
    confirm_removals();
    settle_minimum();
    forget_targets();
    watch_reconciling();
    out.journaled = journaled_;
    make_table(shown, out);
    for (const auto& [id, server] : state_.servers)
      if (server.liveness == Liveness::kDead) out.dead.push_back(id);
    return out;
  }

 private:
  void write_group(GroupId id, const GroupRecord& record) {
    txn_.put(group_key(id), record.encode());
    journaled_ = true;
  }

  bool laid_out(PoolId pool) const {
    auto first = state_.groups.lower_bound(GroupId{pool, 0});
    return first != state_.groups.end() && first->first.pool == pool;
  }
  std::size_t servers_up() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(state_.servers, [](const auto& entry) { return entry.second.up(); }));
  }

  void lay_out() {
    for (auto& [id, pool] : state_.pools) {
      if (laid_out(id) || !state_.first_register) continue;
      PlacementMap map = state_.placement_map(pool, config_.near_full_percent);
      const std::size_t domains = map.domains();
      const bool all_expected = config_.expected_servers > 0 && servers_up() >= config_.expected_servers;
      const bool enough = domains >= pool.replicas && (config_.expected_servers == 0 || all_expected);
      const bool settled = all_expected || now_ >= *state_.last_new_server + config_.layout_settle;
      const bool waited = now_ >= *state_.first_register + config_.layout_wait;
      if (domains == 0 || !((enough && settled) || waited)) continue;
      const auto members = lay_out_groups(map, pool.slots, pool.replicas, rng_);
      for (std::uint32_t slot = 0; slot < members.size(); ++slot) {
        GroupRecord record;
        record.epoch = Epoch(version_.get());
        for (TargetId target : members[slot])
          record.members.push_back({target, true, false, false, state_.boot_of(target)});
        const GroupId group{id, slot};
        write_group(group, record);
        state_.groups[group].record = std::move(record);
      }
      write_minimum(pool, std::min<std::size_t>(domains, pool.replicas));
      log_info("groups_laid_out", "pool={} slots={} domains={} replicas={}", id.value(), pool.slots, domains,
               pool.replicas);
    }
  }

  void plan() {
    PlannerOptions options;
    options.repair_grace = config_.repair_grace;
    options.reconcile_grace = config_.reconcile_grace;
    options.joiners_per_target = config_.joiners_per_target;
    options.rebalance = config_.rebalance;
    options.near_full_percent = config_.near_full_percent;
    std::map<std::string, std::size_t> reasons;
    for (GroupChange& change : plan_repair(state_, options, now_, rng_)) {
      ClusterGroup& group = state_.groups.at(change.group);
      change.next.epoch = Epoch(version_.get());
      for (const GroupMember& member : change.removed) {
        auto target = state_.targets.find(member.target);
        if (target == state_.targets.end()) continue;  // forgotten: its server is gone
        change.next.removed.push_back({target->second.record.server, member.boot, version_.get()});
      }
      CHECK(change.next.in_sync_count() > 0, "a group's in-sync set never becomes empty");
      CHECK(change.next.epoch > group.record.epoch, "a group's epoch grows with every change");
      ++reasons[change.reason];
      log_debug("group_changed", "group={} epoch={} reason={} members={}", to_string(change.group),
                to_string(change.next.epoch), log_quote(change.reason), log_quote(describe(change.next)));
      group.record = std::move(change.next);
      group.reports.clear();
      write_group(change.group, group.record);
    }
    if (reasons.empty()) return;
    std::size_t count = 0;
    std::string text;
    for (const auto& [reason, groups] : reasons) {
      count += groups;
      text += fmt::format("{}{} ({})", text.empty() ? "" : "; ", reason, groups);
    }
    log_info("groups_changed", "count={} epoch={} reasons={}", count, to_string(Epoch(version_.get())),
             log_quote(text));
  }
  static std::string describe(const GroupRecord& record) {
    std::string out;
    for (const GroupMember& member : record.members)
      out +=
          fmt::format("{}{}{}", out.empty() ? "" : " ", to_string(member.target), member.in_sync ? "" : "+");
    return out;
  }

  // A removed member can do no harm any more: it acts on the table without it, its process is gone, or its
  // lease is over.
  bool harmless(const RemovedMember& removed) const {
    auto found = state_.servers.find(removed.server);
    if (found == state_.servers.end()) return true;
    const ClusterServer& server = found->second;
    return server.record.boot != removed.boot || server.liveness == Liveness::kDead ||
           (server.registered && server.routing_known >= removed.version);
  }
  void confirm_removals() {
    for (auto& [id, group] : state_.groups) {
      if (group.record.removed.empty()) continue;
      const auto gone =
          std::erase_if(group.record.removed, [&](const auto& removed) { return harmless(removed); });
      if (gone > 0) write_group(id, group.record);
    }
  }

  // The minimum follows the failure domains there are; it grows only when every group has as many copies, or
  // adding a second server to a cluster of one would stop all durable writes until everything is copied.
  void settle_minimum() {
    for (auto& [id, pool] : state_.pools) {
      if (!laid_out(id)) continue;
      const std::size_t domains = std::max<std::size_t>(1, state_.domains(pool));
      const std::size_t wanted = std::min({std::size_t{2}, std::size_t{pool.replicas}, domains});
      if (wanted < pool.min_replicas) write_minimum(pool, wanted);
      if (wanted <= pool.min_replicas) continue;
      bool all = true;
      for (auto group = state_.groups.lower_bound(GroupId{id, 0});
           group != state_.groups.end() && group->first.pool == id; ++group)
        all = all && serving_copies(state_, group->second.record) >= wanted;
      if (all) write_minimum(pool, wanted);
    }
  }
  void write_minimum(PoolRecord& pool, std::size_t minimum) {
    const auto value = static_cast<std::uint8_t>(std::min<std::size_t>(minimum, 2));
    if (pool.min_replicas == value) return;
    pool.min_replicas = value;
    txn_.put(pool_key(pool.id), pool.encode());
    journaled_ = true;
  }

  void forget_targets() {
    const bool interesting = std::ranges::any_of(state_.targets, [&](const auto& entry) {
      return entry.second.record.lost || entry.second.record.retired || state_.evacuating(entry.first);
    });
    if (!interesting) return;
    std::set<TargetId> used;
    for (const auto& [id, group] : state_.groups)
      for (const GroupMember& member : group.record.members) used.insert(member.target);
    for (auto at = state_.targets.begin(); at != state_.targets.end();) {
      TargetRecord& record = at->second.record;
      const bool in_use = used.contains(at->first);
      if (record.lost && !in_use) {
        log_info("target_forgotten", "target={} server={}", to_string(at->first), to_string(record.server));
        txn_.erase(target_key(at->first));
        journaled_ = true;
        at = state_.targets.erase(at);
        continue;
      }
      const ClusterServer* server = state_.server_of(at->first);
      const bool retired = !in_use && server != nullptr && server->record.draining && !state_.groups.empty();
      if (retired != record.retired) {
        record.retired = retired;
        txn_.put(target_key(at->first), record.encode());
        journaled_ = true;
      }
      ++at;
    }
  }

  void watch_reconciling() {
    for (auto& [id, group] : state_.groups) {
      if (!state_.waiting(group.record))
        group.reconcile_since.reset();
      else if (!group.reconcile_since)
        group.reconcile_since = now_;
    }
  }

  schema::ServerState state_of(const ClusterServer& server) const {
    if (server.liveness == Liveness::kDead) return schema::ServerState::DEAD;
    if (server.record.draining) return schema::ServerState::DRAINING;
    return server.liveness == Liveness::kUp ? schema::ServerState::UP : schema::ServerState::SUSPECT;
  }
  std::uint32_t waiting_servers() const {
    if (!state_.groups.empty()) return 0;
    std::size_t wanted = std::max<std::size_t>(1, config_.expected_servers);
    for (const auto& [id, pool] : state_.pools) wanted = std::max<std::size_t>(wanted, pool.replicas);
    return static_cast<std::uint32_t>(std::max<std::size_t>(1, wanted - std::min(wanted, servers_up())));
  }

  void make_table(const std::shared_ptr<const RoutingTable>& shown, Reconfiguration& out) {
    auto table = std::make_shared<RoutingTable>();
    for (const auto& [id, pool] : state_.pools) table->pools.push_back(pool);
    for (const auto& [id, server] : state_.servers)
      if (server.record.registered) table->servers.push_back({id, server.record.address, state_of(server)});
    table->waiting_servers = waiting_servers();
    bool changed = shown == nullptr || shown->pools != table->pools || shown->servers != table->servers ||
                   shown->waiting_servers != table->waiting_servers;
    auto concern = [&](const RoutingGroup& group) {
      for (const RoutingMember& member : group.members) out.concerned.insert(member.server);
    };
    for (const auto& [id, group] : state_.groups) {
      RoutingGroup entry;
      entry.id = id;
      entry.epoch = group.record.epoch;
      for (const GroupMember& member : group.record.members) {
        auto target = state_.targets.find(member.target);
        const ServerId server = target == state_.targets.end() ? ServerId() : target->second.record.server;
        entry.members.push_back({member.target, server, member.in_sync});
      }
      entry.barrier = !group.record.removed.empty() || state_.waiting(group.record);
      entry.reconcile = group.record.reconcile;
      const RoutingGroup* before = shown == nullptr ? nullptr : shown->find(id);
      if (before != nullptr && before->same_but_version(entry)) {
        entry.version = before->version;
      } else {
        entry.version = version_.get();
        changed = true;
        concern(entry);
        if (before != nullptr) concern(*before);
      }
      table->groups.push_back(std::move(entry));
    }
    if (!changed) return;
    table->version = version_.get();
    table->oldest = shown == nullptr ? table->version : shown->oldest;
    out.table = std::move(table);
  }

  ClusterState& state_;
  Txn& txn_;
  const ClusterConfig& config_;
  const TimePoint now_;
  Rng& rng_;
  StepVersion version_;
  bool journaled_ = false;
};

}  // namespace

bool data_lost(const ClusterState& state, const GroupRecord& group) {
  return std::ranges::all_of(group.members, [&](const GroupMember& member) {
    return !member.in_sync || state.fitness(member.target) == Fitness::kLost;
  });
}

Result<Reconfiguration> reconfigure(ClusterState& state, Txn& txn, const ClusterConfig& config,
                                    const std::shared_ptr<const RoutingTable>& shown, TimePoint now,
                                    Rng& rng) {
  return Step(state, txn, config, now, rng).run(shown);
}

Result<std::size_t> accept_losses(ClusterState& state, Txn& txn, const ClusterConfig& config, Rng& rng) {
  std::map<GroupId, GroupRecord> replaced;
  std::map<PoolId, PlacementMap> maps;
  for (const auto& [id, pool] : state.pools)
    maps.emplace(id, state.placement_map(pool, config.near_full_percent));
  StepVersion version(txn);
  for (const auto& [id, group] : state.groups) {
    if (!data_lost(state, group.record)) continue;
    GroupRecord next;
    next.epoch = Epoch(version.get());
    next.loss_accepted = next.epoch;
    // The latest former member that is there; joiners hold at least a part, and stand behind those.
    std::vector<TargetId> candidates;
    for (const GroupMember& member : group.record.members)
      if (!member.in_sync) candidates.push_back(member.target);
    candidates.insert(candidates.end(), group.record.away.begin(), group.record.away.end());
    for (auto at = candidates.rbegin(); at != candidates.rend() && next.members.empty(); ++at)
      if (state.fitness(*at) == Fitness::kFit)
        next.members.push_back({*at, true, false, false, state.boot_of(*at)});
    if (next.members.empty()) {
      const PoolRecord& pool = state.pools.at(id.pool);
      std::vector<TargetId> members;
      while (members.size() < pool.replicas) {
        const auto chosen = maps.at(id.pool).choose(members, {}, rng);
        if (!chosen) break;
        maps.at(id.pool).add(*chosen, members);
        members.push_back(*chosen);
      }
      for (TargetId target : members)
        next.members.push_back({target, true, false, false, state.boot_of(target)});
    }
    if (next.members.empty())
      return fail(Code::kUnavailable,
                  fmt::format("no server is up that could take over group {}: start one, then repeat",
                              to_string(id)));
    replaced[id] = std::move(next);
  }
  for (auto& [id, next] : replaced) {
    log_error("loss_accepted", "group={} epoch={} member={}", to_string(id), to_string(next.epoch),
              to_string(next.members.front().target));
    txn.put(group_key(id), next.encode());
    state.groups.at(id).record = next;
    state.groups.at(id).reports.clear();
  }
  return replaced.size();
}

}  // namespace cairn::meta
