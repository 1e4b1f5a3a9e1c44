// Gives back the space of chunks whose group has left this target: after a rebalance, a drain, or a repair
// that was done before the target came back.
//
// It only looks and reports: which groups a target is not in, by the routing table, and still has chunks of.
// The metadata server answers with orders for those that are whole without the target; Group::drop() then
// checks every chunk with every member. Nothing has to be remembered: what is not done by the end of the
// process is found again by the next one. Runs one drop at a time. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "chunkserver/group_table.h"
#include "chunkserver/heartbeat.h"

namespace cairn::chunkserver {

struct LeftOver {
  GroupId group;
  TargetId target;
  auto operator<=>(const LeftOver&) const = default;
};

class Reclaimer {
 public:
  static constexpr std::size_t kReportedMax = 256;  // in one heartbeat

  Reclaimer(rpc::Runtime& runtime, std::vector<Target*> targets, const GroupTable& groups,
            std::function<void()> heartbeat_now);

  void start(rpc::TaskGroup& tasks);
  // The routing table as the server acts on it, with slots filled in.
  void routed(const std::vector<GroupConfig>& groups);
  std::vector<LeftOver> left_over() const;
  // The configuration under which the order may be followed; nullopt: it does not fit what is known here.
  std::optional<GroupConfig> config_for(const DropOrder& order) const;
  void drop(std::shared_ptr<Group> group, Epoch epoch);

 private:
  rpc::Task<> run();
  rpc::Task<bool> run_drops();  // false: stopping
  rpc::Task<Result<std::vector<GroupId>>> look(Target& target);

  rpc::Runtime& runtime_;
  const std::vector<Target*> targets_;
  const GroupTable& groups_;
  const std::function<void()> heartbeat_now_;
  rpc::Event wake_;
  mutable std::mutex mutex_;
  std::map<GroupId, GroupConfig> routing_;                               // guarded by mutex_
  std::vector<LeftOver> left_over_;                                      // guarded by mutex_
  std::map<LeftOver, std::pair<std::shared_ptr<Group>, Epoch>> orders_;  // guarded by mutex_
};

}  // namespace cairn::chunkserver
