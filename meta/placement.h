// Which targets a group's copies stand on. Pure: no clock, no IO, all randomness from the Rng given.
//
// Rules: no two members of a group in one failure domain; groups per target follow capacity; the partners of
// a target are spread over all others, so that when it is lost every other target takes a share of the
// copying. Cost of a choice: groups per unit of weight, plus how often the candidate stands beside the
// members already chosen. A greedy choice per group comes within a few groups of the ideal (placement_test.cc
// measures it), and unlike a hash ring it can be continued one group at a time with whatever counts there
// are.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "store/base/ids.h"
#include "store/base/rng.h"

namespace cairn::meta {

struct PlacementTarget {
  TargetId id;
  std::string domain;
  double weight = 1;    // capacity, any unit; > 0
  bool accepts = true;  // up, not draining, not above its near-full mark
};

// The targets and the groups that they hold now; kept up to date by add() and remove() while groups are
// planned.
class PlacementMap {
 public:
  explicit PlacementMap(std::vector<PlacementTarget> targets);

  void add_group(const std::vector<TargetId>& members);
  // `target` joins, or leaves, a group that has `others`.
  void add(TargetId target, const std::vector<TargetId>& others);
  void remove(TargetId target, const std::vector<TargetId>& others);

  // Best target for a group that has `others` already: not one of them, in no domain of theirs, accepting,
  // and not refused by `busy`. Nothing if there is none.
  std::optional<TargetId> choose(const std::vector<TargetId>& others, const std::set<TargetId>& busy,
                                 Rng& rng) const;
  // Groups per unit of weight; 1 is the mean over accepting targets. 0 for a target that is not known.
  double load(TargetId target, int extra_groups = 0) const;
  std::uint32_t groups(TargetId target) const;
  const PlacementTarget* find(TargetId target) const;
  // Failure domains with at least one accepting target.
  std::size_t domains() const;

 private:
  struct Entry {
    PlacementTarget target;
    std::uint32_t groups = 0;
    std::map<TargetId, std::uint32_t> beside;
  };
  double mean_per_weight() const;

  std::map<TargetId, Entry> targets_;
  double accepting_weight_ = 0;
  std::uint64_t all_groups_ = 0;  // memberships
};

// Members of each of `slots` groups of a new pool, min(replicas, domains) each, in chain order (heads are
// spread too). `map` must hold at least one accepting target; it is updated.
std::vector<std::vector<TargetId>> lay_out_groups(PlacementMap& map, std::uint32_t slots,
                                                  std::uint32_t replicas, Rng& rng);

// The failure domain of a target under the pool's rule: "server", "target", or a label's name. A server
// without the label is a domain of its own.
std::string failure_domain_of(const std::string& rule, TargetId target, ServerId server,
                              const std::vector<std::string>& labels);

}  // namespace cairn::meta
