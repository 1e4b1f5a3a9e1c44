#include "meta/placement.h"

#include <algorithm>
#include <string_view>

namespace cairn::meta {

PlacementMap::PlacementMap(std::vector<PlacementTarget> targets) {
  for (PlacementTarget& target : targets) {
    if (target.accepts) accepting_weight_ += target.weight;
    const TargetId id = target.id;
    targets_[id].target = std::move(target);
  }
}

void PlacementMap::add(TargetId target, const std::vector<TargetId>& others) {
  auto entry = targets_.find(target);
  if (entry == targets_.end()) return;
  ++entry->second.groups;
  ++all_groups_;
  for (TargetId other : others) {
    ++entry->second.beside[other];
    if (auto partner = targets_.find(other); partner != targets_.end()) ++partner->second.beside[target];
  }
}

void PlacementMap::remove(TargetId target, const std::vector<TargetId>& others) {
  auto entry = targets_.find(target);
  if (entry == targets_.end() || entry->second.groups == 0) return;
  --entry->second.groups;
  --all_groups_;
  auto less = [](std::map<TargetId, std::uint32_t>& beside, TargetId id) {
    auto found = beside.find(id);
    if (found != beside.end() && --found->second == 0) beside.erase(found);
  };
  for (TargetId other : others) {
    less(entry->second.beside, other);
    if (auto partner = targets_.find(other); partner != targets_.end()) less(partner->second.beside, target);
  }
}

void PlacementMap::add_group(const std::vector<TargetId>& members) {
  std::vector<TargetId> before;
  for (TargetId member : members) {
    add(member, before);
    before.push_back(member);
  }
}

double PlacementMap::mean_per_weight() const {
  return accepting_weight_ > 0 ? std::max<double>(1, static_cast<double>(all_groups_)) / accepting_weight_
                               : 1;
}

double PlacementMap::load(TargetId target, int extra_groups) const {
  auto entry = targets_.find(target);
  if (entry == targets_.end()) return 0;
  const double groups = static_cast<double>(entry->second.groups) + extra_groups;
  return groups / entry->second.target.weight / mean_per_weight();
}

std::uint32_t PlacementMap::groups(TargetId target) const {
  auto entry = targets_.find(target);
  return entry == targets_.end() ? 0 : entry->second.groups;
}

const PlacementTarget* PlacementMap::find(TargetId target) const {
  auto entry = targets_.find(target);
  return entry == targets_.end() ? nullptr : &entry->second.target;
}

std::size_t PlacementMap::domains() const {
  std::set<std::string_view> names;
  for (const auto& [id, entry] : targets_)
    if (entry.target.accepts) names.insert(entry.target.domain);
  return names.size();
}

std::optional<TargetId> PlacementMap::choose(const std::vector<TargetId>& others,
                                             const std::set<TargetId>& busy, Rng& rng) const {
  std::set<std::string_view> taken;
  for (TargetId other : others)
    if (const PlacementTarget* target = find(other)) taken.insert(target->domain);
  const double mean_weight = targets_.empty() ? 1 : accepting_weight_ / static_cast<double>(targets_.size());

  std::vector<TargetId> best;
  double best_cost = 0;
  for (const auto& [id, entry] : targets_) {
    if (!entry.target.accepts || busy.contains(id) || taken.contains(entry.target.domain) ||
        std::ranges::find(others, id) != others.end())
      continue;
    // One group more on a target of mean weight costs 1. A shared group with a present member costs half of
    // that, in the candidate's weight too, so that a large target may stand beside others as often as its
    // size asks for.
    double beside = 0;
    for (TargetId other : others)
      if (auto found = entry.beside.find(other); found != entry.beside.end()) beside += found->second;
    const double cost =
        (static_cast<double>(entry.groups) + 1 + 0.5 * beside) * (mean_weight / entry.target.weight);
    if (best.empty() || cost < best_cost - 1e-9) {
      best.assign(1, id);
      best_cost = cost;
    } else if (cost < best_cost + 1e-9) {
      best.push_back(id);
    }
  }
  if (best.empty()) return std::nullopt;
  return best[rng.below(best.size())];
}

std::vector<std::vector<TargetId>> lay_out_groups(PlacementMap& map, std::uint32_t slots,
                                                  std::uint32_t replicas, Rng& rng) {
  std::vector<std::vector<TargetId>> groups(slots);
  std::map<TargetId, std::uint32_t> heads;
  for (std::vector<TargetId>& members : groups) {
    for (std::uint32_t i = 0; i < replicas; ++i) {
      auto chosen = map.choose(members, {}, rng);
      if (!chosen) break;
      map.add(*chosen, members);
      members.push_back(*chosen);
    }
    // The member that is head least often for its weight goes first: heads do more work.
    auto head = std::ranges::min_element(members, {}, [&](TargetId id) {
      const PlacementTarget* target = map.find(id);
      return static_cast<double>(heads[id] + 1) / (target != nullptr ? target->weight : 1);
    });
    if (head == members.end()) continue;
    std::swap(*head, members.front());
    ++heads[members.front()];
  }
  return groups;
}

std::string failure_domain_of(const std::string& rule, TargetId target, ServerId server,
                              const std::vector<std::string>& labels) {
  if (rule == "target") return "target:" + to_string(target);
  if (rule != "server") {
    const std::string prefix = rule + "=";
    for (const std::string& label : labels)
      if (label.starts_with(prefix)) return label;
  }
  return "server:" + to_string(server);
}

}  // namespace cairn::meta
