#include "chunkserver/reclaimer.h"

#include <algorithm>

#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kLookPause = std::chrono::milliseconds(500);  // at least, between two looks
constexpr Duration kLookAgain = std::chrono::seconds(30);  // a write of an earlier epoch may have ended late

bool is_member(const GroupConfig& config, TargetId target) {
  return std::ranges::any_of(config.members,
                             [&](const GroupMember& member) { return member.target == target; });
}

}  // namespace

Reclaimer::Reclaimer(rpc::Runtime& runtime, std::vector<Target*> targets, const GroupTable& groups,
                     std::function<void()> heartbeat_now)
    : runtime_(runtime),
      targets_(std::move(targets)),
      groups_(groups),
      heartbeat_now_(std::move(heartbeat_now)),
      wake_(runtime) {}

void Reclaimer::start(rpc::TaskGroup& tasks) {
  tasks.spawn(runtime_.make_strand(), run());
}

void Reclaimer::routed(const std::vector<GroupConfig>& groups) {
  if (groups.empty()) return;
  std::lock_guard lock(mutex_);
  for (const GroupConfig& config : groups)
    if (config.slots > 0) routing_[config.id] = config;
  wake_.set();
}

std::vector<LeftOver> Reclaimer::left_over() const {
  std::lock_guard lock(mutex_);
  return {left_over_.begin(),
          left_over_.begin() + static_cast<std::ptrdiff_t>(std::min(left_over_.size(), kReportedMax))};
}

std::optional<GroupConfig> Reclaimer::config_for(const DropOrder& order) const {
  std::lock_guard lock(mutex_);
  auto at = routing_.find(order.group);
  if (at == routing_.end() || at->second.epoch != order.epoch || is_member(at->second, order.target))
    return std::nullopt;
  return at->second;
}

void Reclaimer::drop(std::shared_ptr<Group> group, Epoch epoch) {
  const LeftOver key{group->id(), group->target().id()};
  std::lock_guard lock(mutex_);
  orders_[key] = {std::move(group), epoch};
  wake_.set();
}

rpc::Task<> Reclaimer::run() {
  for (;;) {
    auto woken = co_await wake_.wait(Deadline::after(runtime_.clock(), kLookAgain));
    if (!woken && woken.error().code() == Code::kCancelled) co_return;
    wake_.reset();
    const bool goes_on = co_await run_drops();
    if (!goes_on) co_return;
    std::vector<LeftOver> found;
    for (Target* target : targets_) {
      if (target->failed()) continue;
      auto groups = co_await look(*target);
      if (!groups) {
        if (groups.error().code() == Code::kCancelled) co_return;
        log_debug("left_over_unknown", "target={} error={}", to_string(target->id()),
                  log_quote(groups.error().to_string()));
        continue;
      }
      for (const GroupId& group : *groups) found.push_back({group, target->id()});
    }
    bool news = false;
    {
      std::lock_guard lock(mutex_);
      news = !found.empty() && found != left_over_;
      left_over_ = std::move(found);
    }
    if (news) heartbeat_now_();
    auto slept = co_await rpc::sleep_for(runtime_, kLookPause);
    if (!slept) co_return;
  }
}

rpc::Task<bool> Reclaimer::run_drops() {
  std::uint64_t groups = 0;
  std::uint64_t chunks = 0;
  for (;;) {
    std::shared_ptr<Group> group;
    Epoch epoch;
    {
      std::lock_guard lock(mutex_);
      if (orders_.empty()) break;
      auto first = orders_.begin();
      std::tie(group, epoch) = std::move(first->second);
      orders_.erase(first);
    }
    auto dropped = co_await group->drop(epoch);
    if (dropped) {
      if (dropped->chunks == 0) continue;  // the order came twice
      ++groups;
      chunks += dropped->chunks;
      log_debug("group_dropped", "group={} target={} epoch={} chunks={} kept={}", to_string(group->id()),
                to_string(group->target().id()), to_string(epoch), dropped->chunks, dropped->kept);
      continue;
    }
    if (dropped.error().code() == Code::kCancelled) co_return false;
    // Still left over, so it is reported and ordered again.
    log_debug("drop_waits", "group={} target={} error={}", to_string(group->id()),
              to_string(group->target().id()), log_quote(dropped.error().to_string()));
  }
  if (groups > 0) log_info("left_over_dropped", "groups={} chunks={}", groups, chunks);
  co_return true;
}

// Groups that the target is not in and has chunks of, other than those set aside.
rpc::Task<Result<std::vector<GroupId>>> Reclaimer::look(Target& target) {
  using Ids = std::vector<GroupId>;
  std::vector<std::pair<GroupId, std::uint32_t>> outside;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, config] : routing_)
      if (!is_member(config, target.id())) outside.emplace_back(id, config.slots);
  }
  std::vector<std::shared_ptr<Group>> with_aside;
  for (const auto& group : groups_.all())
    if (group->target().id() == target.id() && group->aside_count() > 0) with_aside.push_back(group);
  Target::Work<Ids> work = [outside = std::move(outside),
                            with_aside = std::move(with_aside)](disk::ChunkEngine& engine) -> Result<Ids> {
    for (const auto& group : with_aside) group->review_aside(engine);
    Ids found;
    for (const auto& [id, slots] : outside) {
      std::optional<std::vector<ChunkId>> aside;  // looked up with the first chunk: mostly there is none
      Result<> read;
      bool any = false;
      TRYV(engine.for_each(id, slots, std::nullopt, [&](const disk::ChunkInfo& info) {
        if (!aside) {
          aside.emplace();
          auto value = engine.get_value(aside_prefix() + to_string(id));
          if (value && *value) {
            auto decoded = decode_aside(**value);
            if (decoded)
              aside = std::move(*decoded);
            else
              read = fail(std::move(decoded.error()));
          } else if (!value) {
            read = fail(std::move(value.error()));
          }
          std::ranges::sort(*aside);
        }
        any = read && !std::ranges::binary_search(*aside, info.chunk);
        return read && !any;
      }));
      TRYV(std::move(read));
      if (any) found.push_back(id);
    }
    return found;
  };
  co_return co_await target.run<Ids>(std::move(work));
}

}  // namespace cairn::chunkserver
