#include "meta/repair_planner.h"

#include <algorithm>

namespace cairn::meta {
namespace {

constexpr std::size_t kAwayMax = 8;

// One group on its way from the present record to the next.
struct Draft {
  GroupId id;
  const ClusterGroup* group = nullptr;
  const PoolRecord* pool = nullptr;
  GroupRecord next;
  std::vector<GroupMember> removed;
  std::string reason;
  bool changed = false;

  void note(std::string_view why) {
    changed = true;
    if (reason.find(why) != std::string::npos) return;
    if (!reason.empty()) reason += ", ";
    reason += why;
  }
  std::size_t joiners() const { return next.members.size() - next.in_sync_count(); }
};

class Planner {
 public:
  Planner(const ClusterState& state, const PlannerOptions& options, TimePoint now, Rng& rng)
      : state_(state), options_(options), now_(now), rng_(rng) {
    for (const auto& [id, pool] : state.pools)
      maps_.emplace(id, state.placement_map(pool, options.near_full_percent));
  }

  std::vector<GroupChange> run() {
    for (const auto& [id, group] : state_.groups) {
      Draft draft;
      draft.id = id;
      draft.group = &group;
      draft.pool = &state_.pools.at(id.pool);
      draft.next = group.record;
      settle(draft);
      drafts_.push_back(std::move(draft));
    }
    recount();
    add_joiners();
    if (options_.rebalance && calm()) rebalance();
    std::vector<GroupChange> changes;
    for (Draft& draft : drafts_)
      if (draft.changed)
        changes.push_back(
            {draft.id, std::move(draft.next), std::move(draft.removed), std::move(draft.reason)});
    return changes;
  }

 private:
  Fitness fitness(const GroupMember& member) const { return state_.fitness(member.target); }
  bool serving(const GroupMember& member) const { return state_.serving(member); }
  std::size_t count_serving(const Draft& draft) const { return serving_copies(state_, draft.next); }

  // --- taking members out ---

  // Takes out those for which `leaves` holds; they are remembered as away if they may come back.
  template <class Predicate>
  void take_out(Draft& draft, std::string_view why, Predicate leaves) {
    std::erase_if(draft.next.members, [&](const GroupMember& member) {
      if (!leaves(member)) return false;
      draft.note(why);
      if (member.in_sync && !member.restarted) draft.removed.push_back(member);
      if (fitness(member) != Fitness::kLost) remember_away(draft.next, member.target);
      return true;
    });
  }
  static void remember_away(GroupRecord& record, TargetId target) {
    std::erase(record.away, target);
    record.away.push_back(target);
    if (record.away.size() > kAwayMax) record.away.erase(record.away.begin());
  }

  // --- rules 1 to 4: one group by itself ---

  void settle(Draft& draft) {
    note_restarts(draft);
    settle_in_sync_set(draft);
    settle_joiners(draft);
    if (!draft.changed) promote(draft);
    drop_surplus(draft);
  }

  void note_restarts(Draft& draft) {
    for (GroupMember& member : draft.next.members) {
      if (fitness(member) == Fitness::kLost) continue;
      const std::uint64_t boot = state_.boot_of(member.target);
      if (member.boot == boot) continue;
      member.boot = boot;
      member.restarted = member.in_sync;
      draft.note("member restarted");
    }
  }

  void settle_in_sync_set(Draft& draft) {
    GroupRecord& next = draft.next;
    const bool any_serving = std::ranges::any_of(next.members, [&](const auto& m) { return serving(m); });
    if (any_serving) {
      take_out(draft, "member left the set", [&](const GroupMember& m) {
        return m.in_sync && !serving(m) && (m.restarted || fitness(m) != Fitness::kUnknown);
      });
      if (next.reconcile) {
        next.reconcile = false;
        draft.note("a member without restart returned");
      }
      // A disk that only reads stops every write of its group, so it goes before its successor is there, if
      // enough stay.
      if (good_copies(state_, next) >= draft.pool->min_replicas)
        take_out(draft, "read-only disk left",
                 [&](const GroupMember& m) { return m.in_sync && state_.read_only(m.target); });
      return;
    }
    // Nobody serves. Lost targets are struck out while another member of the set remains.
    const bool some_remain = std::ranges::any_of(
        next.members, [&](const auto& m) { return m.in_sync && fitness(m) != Fitness::kLost; });
    if (some_remain)
      take_out(draft, "lost target struck out",
               [&](const GroupMember& m) { return m.in_sync && fitness(m) == Fitness::kLost; });
    const bool any_restarted =
        std::ranges::any_of(next.members, [](const auto& m) { return m.in_sync && m.restarted; });
    if (any_restarted) reconcile(draft);
  }

  void reconcile(Draft& draft) {
    GroupRecord& next = draft.next;
    if (!next.reconcile) {
      next.reconcile = true;
      draft.note("all members restarted: reconcile");
    }
    take_out(draft, "reconcile without joiners", [](const GroupMember& m) { return !m.in_sync; });
    auto present = [&](const GroupMember& m) { return fitness(m) == Fitness::kFit; };
    const bool any_present = std::ranges::any_of(next.members, present);
    const bool any_unknown =
        std::ranges::any_of(next.members, [&](const auto& m) { return fitness(m) == Fitness::kUnknown; });
    const auto since = draft.group->reconcile_since;
    if (any_present && !any_unknown && since && now_ >= *since + options_.reconcile_grace)
      take_out(draft, "reconcile without absent members", [&](const GroupMember& m) { return !present(m); });
    if (draft.changed || state_.waiting(next)) return;
    const GroupMember head = next.members.front();
    auto report = draft.group->reports.find(head.target);
    if (report == draft.group->reports.end() || report->second.epoch != next.epoch ||
        report->second.state != ProgressState::kReconciled)
      return;
    next.reconcile = false;
    next.members.front().restarted = false;
    draft.note("reconciled");
    for (std::size_t i = 1; i < next.members.size(); ++i) remember_away(next, next.members[i].target);
    next.members.resize(1);
  }

  void settle_joiners(Draft& draft) {
    take_out(draft, "joiner left", [&](const GroupMember& m) {
      if (m.in_sync) return false;
      const Fitness fit = fitness(m);
      return (fit != Fitness::kFit && fit != Fitness::kUnknown) || state_.evacuating(m.target);
    });
  }

  // The report may come from the joiner or from the tail that feeds it; both know the epoch it is about.
  void promote(Draft& draft) {
    if (draft.next.reconcile || count_serving(draft) == 0) return;
    auto joiner = std::ranges::find(draft.next.members, false, &GroupMember::in_sync);
    if (joiner == draft.next.members.end() || fitness(*joiner) != Fitness::kFit) return;
    const bool caught_up = std::ranges::any_of(draft.group->reports, [&](const auto& entry) {
      const auto& [target, report] = entry;
      return report.state == ProgressState::kCaughtUp && report.epoch == draft.next.epoch &&
             draft.next.find(target) != nullptr;
    });
    if (!caught_up) return;
    joiner->in_sync = true;  // the first joiner: it stands behind the last in-sync member already
    joiner->returning = false;
    std::erase(draft.next.away, joiner->target);
    draft.note("joiner caught up");
  }

  void drop_surplus(Draft& draft) {
    GroupRecord& next = draft.next;
    const std::size_t replicas = draft.pool->replicas;
    const GroupMember* leaving = next.leaving.valid() ? next.find(next.leaving) : nullptr;
    if (next.leaving.valid() &&
        (leaving == nullptr || !leaving->in_sync || count_serving(draft) < replicas)) {
      next.leaving = TargetId();  // it is gone, or needed after all
      draft.note("move given up");
    }
    while (count_serving(draft) > replicas) {
      const GroupMember* victim = nullptr;
      for (const GroupMember& member : next.members)
        if (serving(member) && (victim == nullptr || rather_without(draft, member, *victim)))
          victim = &member;
      const TargetId target = victim->target;
      draft.removed.push_back(*victim);
      std::erase_if(next.members, [&](const GroupMember& m) { return m.target == target; });
      std::erase(next.away, target);
      if (next.leaving == target) next.leaving = TargetId();
      draft.note("one copy more than needed");
    }
    const std::size_t unknown =
        static_cast<std::size_t>(std::ranges::count_if(next.members, [&](const auto& m) {
          return m.in_sync && !m.restarted && fitness(m) == Fitness::kUnknown;
        }));
    const std::size_t good = good_copies(state_, next) + unknown;
    if (good >= replicas) {
      const auto joiners = std::erase_if(next.members, [](const GroupMember& m) { return !m.in_sync; });
      if (joiners > 0) draft.note("joiner not needed any more");
      if (draft.changed && unknown == 0) next.away.clear();  // not worth an epoch of its own
    }
  }
  bool rather_without(const Draft& draft, const GroupMember& a, const GroupMember& b) const {
    auto rank = [&](const GroupMember& m) {
      if (state_.evacuating(m.target)) return 2;
      return m.target == draft.next.leaving ? 1 : 0;
    };
    if (rank(a) != rank(b)) return rank(a) > rank(b);
    const PlacementMap& map = maps_.at(draft.id.pool);
    return map.load(a.target) > map.load(b.target);
  }

  // --- rule 5 ---

  struct Copies {
    std::uint32_t in = 0;
    std::uint32_t out = 0;
  };
  static TargetId source_of(const GroupRecord& record) {
    TargetId tail;
    for (const GroupMember& member : record.members)
      if (member.in_sync) tail = member.target;
    return tail;
  }

  // After members left: counts for the limits and for placement.
  void recount() {
    for (auto& [id, map] : maps_) map = state_.placement_map(state_.pools.at(id), options_.near_full_percent);
    for (const Draft& draft : drafts_) {
      if (draft.changed) {
        PlacementMap& map = maps_.at(draft.id.pool);
        std::vector<TargetId> before = counted(draft.group->record);
        while (!before.empty()) {
          const TargetId target = before.back();
          before.pop_back();
          map.remove(target, before);
        }
        map.add_group(counted(draft.next));
      }
      for (const GroupMember& member : draft.next.members)
        if (!member.in_sync) count_copy(draft.next, member.target);
    }
  }
  static std::vector<TargetId> counted(const GroupRecord& record) {
    std::vector<TargetId> members;
    for (const GroupMember& member : record.members)
      if (member.target != record.leaving) members.push_back(member.target);
    return members;
  }
  void count_copy(const GroupRecord& record, TargetId joiner) {
    ++copies_[joiner].in;
    ++copies_[source_of(record)].out;
  }

  void add_joiners() {
    std::vector<Draft*> order;
    for (Draft& draft : drafts_)
      if (!draft.next.reconcile && count_serving(draft) > 0) order.push_back(&draft);
    std::ranges::stable_sort(order, {}, [&](const Draft* draft) { return good_copies(state_, draft->next); });
    for (Draft* draft : order) add_joiner(*draft);
  }

  void add_joiner(Draft& draft) {
    GroupRecord& next = draft.next;
    const std::size_t unknown = static_cast<std::size_t>(std::ranges::count_if(
        next.members, [&](const auto& m) { return m.in_sync && fitness(m) == Fitness::kUnknown; }));
    if (good_copies(state_, next) + unknown >= draft.pool->replicas) return;
    if (draft.joiners() > 0) {
      const GroupMember joiner = next.members.back();
      if (joiner.returning || half_done(draft, joiner.target)) return;
      const auto back = returned(draft);
      if (!back) return;
      std::erase_if(next.members, [](const GroupMember& m) { return !m.in_sync; });
      maps_.at(draft.id.pool).remove(joiner.target, counted(next));
      add(draft, *back, true, "former member returned in place of its replacement");
      return;
    }
    if (const auto back = returned(draft)) {
      add(draft, *back, true, "former member returned");
      return;
    }
    if (!may_replace(draft, unknown)) return;
    if (copies_[source_of(next)].out >= options_.joiners_per_target) return;
    std::set<TargetId> busy;
    for (const auto& [target, copies] : copies_)
      if (copies.in >= options_.joiners_per_target) busy.insert(target);
    for (const GroupMember& member : next.members) busy.insert(member.target);
    if (const auto chosen = maps_.at(draft.id.pool).choose(staying(draft), busy, rng_))
      add(draft, *chosen, false, "replacement");
  }

  // Members whose failure domains a newcomer must avoid; those about to go do not count.
  std::vector<TargetId> staying(const Draft& draft) const {
    std::vector<TargetId> out;
    std::vector<TargetId> going;
    for (const GroupMember& member : draft.next.members) {
      const bool goes = state_.evacuating(member.target) || member.target == draft.next.leaving;
      (goes ? going : out).push_back(member.target);
    }
    return out;
  }

  bool half_done(const Draft& draft, TargetId joiner) const {
    auto report = draft.group->reports.find(joiner);
    return report != draft.group->reports.end() && report->second.epoch == draft.group->record.epoch &&
           report->second.bytes_copied > report->second.bytes_left;
  }

  std::optional<TargetId> returned(const Draft& draft) const {
    for (auto target = draft.next.away.rbegin(); target != draft.next.away.rend(); ++target) {
      if (state_.fitness(*target) != Fitness::kFit || state_.evacuating(*target) ||
          draft.next.find(*target) != nullptr)
        continue;
      const std::string domain = state_.domain_of(*draft.pool, *target);
      const bool clashes = std::ranges::any_of(staying(draft), [&](TargetId other) {
        return draft.next.find(other)->in_sync && state_.domain_of(*draft.pool, other) == domain;
      });
      if (!clashes) return *target;
    }
    return std::nullopt;
  }

  bool may_replace(const Draft& draft, std::size_t unknown) const {
    if (unknown > 0) return false;
    if (count_serving(draft) < draft.pool->min_replicas) return true;
    return std::ranges::none_of(draft.next.away, [&](TargetId target) {
      const Fitness fit = state_.fitness(target);
      if (fit == Fitness::kUnknown) return true;
      return fit == Fitness::kDown && !state_.evacuating(target) &&
             now_ < state_.server_of(target)->down_since + options_.repair_grace;
    });
  }

  void add(Draft& draft, TargetId target, bool returning, std::string_view why) {
    GroupMember member;
    member.target = target;
    member.returning = returning;
    member.boot = state_.boot_of(target);
    maps_.at(draft.id.pool).add(target, counted(draft.next));
    draft.next.members.push_back(member);
    std::erase(draft.next.away, target);
    draft.note(why);
    count_copy(draft.next, target);
  }

  // --- rule 6 ---

  bool calm() const {
    return std::ranges::all_of(drafts_, [&](const Draft& draft) {
      return !draft.changed && !draft.next.reconcile && draft.next.removed.empty() &&
             (draft.joiners() == 0 || draft.next.leaving.valid()) &&
             (count_serving(draft) >= draft.pool->replicas);
    });
  }

  void rebalance() {
    for (Draft& draft : drafts_) {
      if (draft.joiners() > 0) continue;
      PlacementMap& map = maps_.at(draft.id.pool);
      const auto worst = std::ranges::max_element(draft.next.members, {},
                                                  [&](const GroupMember& m) { return map.load(m.target); });
      std::vector<TargetId> others;
      for (const GroupMember& member : draft.next.members)
        if (member.target != worst->target) others.push_back(member.target);
      std::set<TargetId> busy{worst->target};
      for (const auto& [target, copies] : copies_)
        if (copies.in + copies.out > 0) busy.insert(target);
      if (busy.contains(source_of(draft.next)) && source_of(draft.next) != worst->target) continue;
      if (copies_.contains(worst->target) && copies_[worst->target].in + copies_[worst->target].out > 0)
        continue;
      const auto better = map.choose(others, busy, rng_);
      // Only if it is still less loaded with one group more: no move is ever undone by the next.
      if (!better || map.load(*better, 1) >= map.load(worst->target)) continue;
      map.remove(worst->target, others);
      draft.next.leaving = worst->target;
      add(draft, *better, false, "rebalance");
    }
  }

  const ClusterState& state_;
  const PlannerOptions& options_;
  const TimePoint now_;
  Rng& rng_;
  std::vector<Draft> drafts_;
  std::map<PoolId, PlacementMap> maps_;
  std::map<TargetId, Copies> copies_;
};

}  // namespace

std::size_t serving_copies(const ClusterState& state, const GroupRecord& group) {
  if (group.reconcile) return 0;
  return static_cast<std::size_t>(
      std::ranges::count_if(group.members, [&](const GroupMember& m) { return state.serving(m); }));
}

std::size_t good_copies(const ClusterState& state, const GroupRecord& group) {
  if (group.reconcile) return 0;
  return static_cast<std::size_t>(std::ranges::count_if(group.members, [&](const GroupMember& m) {
    return state.serving(m) && !state.evacuating(m.target) && m.target != group.leaving;
  }));
}

std::vector<GroupChange> plan_repair(const ClusterState& state, const PlannerOptions& options, TimePoint now,
                                     Rng& rng) {
  return Planner(state, options, now, rng).run();
}

}  // namespace cairn::meta
