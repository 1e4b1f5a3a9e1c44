#include "meta/cluster_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "meta/cluster_reconfigure.h"
#include "meta/repair_planner.h"

namespace cairn::meta {
namespace {

using nlohmann::json;

constexpr double kWindowNs = 5e9;

// Addresses and labels of servers that joined long ago may be any bytes.
std::string text_of(const json& page) {
  return page.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string_view name_of(GroupHealth health) {
  switch (health) {
    case GroupHealth::kWhole:
      return "whole";
    case GroupHealth::kDegraded:
      return "degraded";
    case GroupHealth::kAtRisk:
      return "at_risk";
    case GroupHealth::kLost:
      return "lost";
  }
  return "lost";
}

std::string_view name_of(ProgressState state) {
  switch (state) {
    case ProgressState::kCopying:
      return "copying";
    case ProgressState::kCaughtUp:
      return "caught_up";
    case ProgressState::kReconciling:
      return "reconciling";
    case ProgressState::kReconciled:
      return "reconciled";
    case ProgressState::kFailed:
      return "failed";
  }
  return "failed";
}

struct Totals {
  std::size_t total = 0;
  std::size_t whole = 0;
  std::size_t degraded = 0;  // every group that is neither whole nor lost
  std::size_t at_risk = 0;   // of these
  std::size_t lost = 0;
};

Totals count_groups(const ClusterState& state) {
  Totals totals;
  for (const auto& [id, group] : state.groups) {
    ++totals.total;
    switch (health_of(state, id, group.record)) {
      case GroupHealth::kWhole:
        ++totals.whole;
        break;
      case GroupHealth::kLost:
        ++totals.lost;
        break;
      case GroupHealth::kAtRisk:
        ++totals.at_risk;
        [[fallthrough]];
      case GroupHealth::kDegraded:
        ++totals.degraded;
        break;
    }
  }
  if (totals.total == 0)  // not laid out yet
    for (const auto& [id, pool] : state.pools) {
      totals.total += pool.slots;
      totals.degraded += pool.slots;
    }
  return totals;
}

// Groups that still have a member on a server that is being drained, by server.
std::map<ServerId, std::size_t> draining_groups(const ClusterState& state) {
  std::map<ServerId, std::size_t> groups_on;
  for (const auto& [id, group] : state.groups)
    for (const GroupMember& member : group.record.members) {
      const auto target = state.targets.find(member.target);
      if (target == state.targets.end()) continue;
      const auto server = state.servers.find(target->second.record.server);
      if (server != state.servers.end() && server->second.record.draining &&
          server->second.liveness != Liveness::kDead)
        ++groups_on[server->first];
    }
  return groups_on;
}

std::string_view server_state(const ClusterServer& server) {
  if (server.liveness != Liveness::kDead && server.record.draining) return "draining";
  return name_of(server.liveness);
}

json server_entry(const ClusterState& state, const ClusterServer& server) {
  std::uint64_t used = 0;
  std::uint64_t total = 0;
  for (const auto& [id, target] : state.targets) {
    if (target.record.server != server.record.id || target.record.lost) continue;
    used += target.used_bytes;
    total += target.record.capacity_bytes;
  }
  return {{"id", to_string(server.record.id)},
          {"address", server.record.address},
          {"state", server_state(server)},
          {"used_bytes", used},
          {"total_bytes", total}};
}

std::vector<std::string> notes_of(const StatusInput& input, const Totals& totals) {
  std::vector<std::string> notes;
  const ClusterState& state = input.state;
  if (state.groups.empty())
    notes.push_back(fmt::format("waiting for {} more chunkserver(s) to register before data can be stored",
                                input.waiting_servers));
  if (totals.lost > 0)
    notes.push_back(fmt::format(
        "{} group(s) have no good copy left: bring their disks back, or accept the loss with 'cairn "
        "admin forget SERVER --accept-loss'",
        totals.lost));
  for (const auto& [id, groups] : draining_groups(state))
    notes.push_back(
        fmt::format("server {} is draining: {} group(s) still have a copy on it; do not stop it yet",
                    to_string(id), groups));
  for (const auto& [id, target] : state.targets) {
    if (target.record.lost)
      notes.push_back(
          fmt::format("target {} of server {} is gone; its groups are copied from the other members",
                      to_string(id), to_string(target.record.server)));
    else if (target.record.retired)
      notes.push_back(fmt::format("target {} of draining server {} is empty of groups: it may be taken away",
                                  to_string(id), to_string(target.record.server)));
    else if (target.condition != TargetCondition::kOk && state.fitness(id) != Fitness::kDown)
      notes.push_back(fmt::format("target {} of server {} is {}", to_string(id),
                                  to_string(target.record.server), meta::name_of(target.condition)));
  }
  std::uint64_t damaged = 0;
  std::uint64_t unknown = 0;
  for (const auto& [id, server] : state.servers) {
    damaged += server.corrupt_found - std::min(server.corrupt_found, server.corrupt_repaired);
    unknown += server.unknown_chunks;
  }
  if (damaged > 0)
    notes.push_back(fmt::format(
        "{} damaged block(s) are not repaired (yet): 'chunk_lost' in the chunkservers' logs names "
        "those without a good copy",
        damaged));
  if (unknown > 0)
    notes.push_back(fmt::format(
        "{} chunk(s) that only a former member has are kept aside: 'unknown_chunks' in its log", unknown));
  if (input.counts.store_full)
    notes.push_back(
        "the metadata server's file system is full: only removals are taken. Make room where its data_dir "
        "is");
  std::size_t waiting = 0;
  for (const auto& [id, group] : state.groups) waiting += state.waiting(group.record);
  if (waiting > 0)
    notes.push_back(
        fmt::format("{} group(s) wait for members of their last in-sync set to come back", waiting));
  return notes;
}

}  // namespace

GroupHealth health_of(const ClusterState& state, GroupId id, const GroupRecord& group) {
  if (data_lost(state, group)) return GroupHealth::kLost;
  const PoolRecord& pool = state.pools.at(id.pool);
  const std::size_t copies = serving_copies(state, group);
  if (copies < pool.min_replicas) return GroupHealth::kAtRisk;
  return copies < pool.replicas ? GroupHealth::kDegraded : GroupHealth::kWhole;
}

RepairWork repair_work(const ClusterState& state) {
  std::map<TargetId, std::uint64_t> groups_on;
  for (const auto& [id, group] : state.groups)
    for (const GroupMember& member : group.record.members)
      if (member.in_sync) ++groups_on[member.target];
  RepairWork work;
  for (const auto& [id, group] : state.groups) {
    const GroupRecord& record = group.record;
    const std::size_t replicas = state.pools.at(id.pool).replicas;
    const std::size_t joiners = record.members.size() - record.in_sync_count();
    const bool copying = joiners > 0;
    const std::size_t good = good_copies(state, record);
    const std::size_t missing = good < replicas ? replicas - good : 0;
    if (!copying && missing == 0 && !record.reconcile) continue;
    bool reported = false;
    for (const auto& [target, report] : group.reports) {
      if (report.epoch != record.epoch || report.state == ProgressState::kCaughtUp) continue;
      work.chunks_left += report.chunks_left;
      work.bytes_left += report.bytes_left;
      reported = true;
    }
    work.copies_going_on += joiners;
    const std::size_t waiting = missing > joiners ? missing - joiners : 0;
    work.copies_waiting += waiting;
    // A copy not yet reported on is as large as the source's mean group.
    const std::size_t unseen = waiting + (copying && !reported && group.reports.empty() ? 1 : 0);
    auto source = state.targets.find(record.members.front().target);
    if (unseen == 0 || source == state.targets.end()) continue;
    const std::uint64_t share = std::max<std::uint64_t>(1, groups_on[source->first]);
    work.chunks_left += unseen * (source->second.chunks / share);
    work.bytes_left += unseen * (source->second.used_bytes / share);
  }
  return work;
}

void CopyRate::decay(TimePoint now) {
  const double passed = static_cast<double>((now - at_).count());
  if (passed > 0) bytes_ *= std::exp(-passed / kWindowNs);
  at_ = std::max(at_, now);
}
void CopyRate::add(std::uint64_t bytes, TimePoint now) {
  decay(now);
  if (bytes > 0) moved_ = now;
  bytes_ += static_cast<double>(bytes);
}
std::uint64_t CopyRate::bytes_per_second(TimePoint now) const {
  // What decays never reaches zero, and an estimate from it grows to days.
  if (static_cast<double>((now - moved_).count()) > kWindowNs) return 0;
  CopyRate copy = *this;
  copy.decay(now);
  return static_cast<std::uint64_t>(copy.bytes_ / (kWindowNs / 1e9));
}

std::string status_json(const StatusInput& input) {
  const ClusterState& state = input.state;
  const Totals totals = count_groups(state);
  const RepairWork work = repair_work(state);
  json servers = json::array();
  std::uint64_t found = 0;
  std::uint64_t repaired = 0;
  std::uint64_t unknown = 0;
  for (const auto& [id, server] : state.servers) {
    if (server.record.registered) servers.push_back(server_entry(state, server));
    found += server.corrupt_found;
    repaired += server.corrupt_repaired;
    unknown += server.unknown_chunks;
  }
  std::string_view health = "ok";
  if (!draining_groups(state).empty()) health = "draining";
  if (totals.degraded > 0) health = "degraded";
  if (totals.at_risk > 0) health = "at_risk";
  if (totals.lost > 0) health = "data_lost";
  json pools = json::array();
  for (const auto& [id, pool] : state.pools)
    pools.push_back({{"id", id.value()},
                     {"slots", pool.slots},
                     {"replicas", pool.replicas},
                     {"min_replicas", pool.min_replicas},
                     {"chunk_bytes", pool.chunk_size},
                     {"failure_domain", pool.failure_domain}});
  json eta = nullptr;  // unknown while nothing is copied
  if (work.bytes_left == 0)
    eta = 0;
  else if (input.bytes_per_second > 0)
    eta = (work.bytes_left + input.bytes_per_second - 1) / input.bytes_per_second;
  json out = {{"cluster_id", to_string(input.cluster)},
              {"health", health},
              {"groups",
               {{"total", totals.total},
                {"whole", totals.whole},
                {"degraded", totals.degraded},
                {"at_risk", totals.at_risk},
                {"lost", totals.lost}}},
              {"servers", servers},
              {"repair",
               {{"chunks_left", work.chunks_left},
                {"bytes_left", work.bytes_left},
                {"bytes_per_second", input.bytes_per_second},
                {"eta_seconds", eta},
                {"copies_going_on", work.copies_going_on},
                {"copies_waiting", work.copies_waiting}}},
              {"files", input.counts.files},
              {"objects", input.counts.objects},
              {"trash", {{"files", input.counts.trash_files}, {"bytes", input.counts.trash_bytes}}},
              {"sessions", input.counts.sessions},
              {"pools", pools},
              {"corrupt", {{"found", found}, {"repaired", repaired}}},
              {"unknown_chunks", unknown},
              {"waiting_servers", input.waiting_servers},
              {"servers_with_purges_to_do", input.purges_behind},
              {"routing_version", hex64(input.routing_version)},
              {"notes", notes_of(input, totals)}};
  return text_of(out);
}

std::string servers_json(const StatusInput& input) {
  const ClusterState& state = input.state;
  std::map<TargetId, std::uint64_t> groups_on;
  for (const auto& [id, group] : state.groups)
    for (const GroupMember& member : group.record.members) ++groups_on[member.target];
  json servers = json::array();
  for (const auto& [id, server] : state.servers) {
    json entry = server_entry(state, server);
    entry["labels"] = server.record.labels;
    entry["draining"] = server.record.draining;
    entry["registered"] = server.record.registered;
    entry["silent_seconds"] = server.registered
                                  ? json(static_cast<double>((input.now - server.heard).count()) / 1e9)
                                  : json(nullptr);
    entry["corrupt_found"] = server.corrupt_found;
    entry["corrupt_repaired"] = server.corrupt_repaired;
    entry["unknown_chunks"] = server.unknown_chunks;
    entry["groups_left_over"] = server.groups_left_over;
    entry["foreground_ms"] = server.foreground_ms;
    json targets = json::array();
    for (const auto& [target_id, target] : state.targets) {
      if (target.record.server != id) continue;
      const Fitness fit = state.fitness(target_id);
      std::string_view condition = meta::name_of(target.condition);
      if (fit == Fitness::kLost)
        condition = "lost";
      else if (fit == Fitness::kDown)
        condition = "down";
      else if (fit == Fitness::kUnknown)
        condition = "unknown";
      else if (target.record.retired)
        condition = "retired";
      targets.push_back({{"id", to_string(target_id)},
                         {"state", condition},
                         {"total_bytes", target.record.capacity_bytes},
                         {"used_bytes", target.used_bytes},
                         {"available_bytes", target.available_bytes},
                         {"chunks", target.chunks},
                         {"groups", groups_on[target_id]}});
    }
    entry["targets"] = std::move(targets);
    servers.push_back(std::move(entry));
  }
  return text_of(json{{"servers", std::move(servers)}});
}

std::string groups_json(const StatusInput& input) {
  const ClusterState& state = input.state;
  json groups = json::array();
  for (const auto& [id, group] : state.groups) {
    const GroupRecord& record = group.record;
    json members = json::array();
    for (const GroupMember& member : record.members) {
      auto target = state.targets.find(member.target);
      const bool known = target != state.targets.end();
      json entry = {{"target", to_string(member.target)},
                    {"server", known ? to_string(target->second.record.server) : "forgotten"},
                    {"in_sync", member.in_sync},
                    {"serving", !record.reconcile && state.serving(member)}};
      auto report = group.reports.find(member.target);
      if (report != group.reports.end())
        entry["progress"] = {{"state", name_of(report->second.state)},
                             {"chunks_left", report->second.chunks_left},
                             {"bytes_left", report->second.bytes_left},
                             {"bytes_copied", report->second.bytes_copied}};
      members.push_back(std::move(entry));
    }
    json entry = {{"id", to_string(id)},
                  {"epoch", to_string(record.epoch)},
                  {"state", name_of(health_of(state, id, record))},
                  {"copies", serving_copies(state, record)},
                  {"reconcile", record.reconcile},
                  {"waiting", state.waiting(record)},
                  {"barrier", !record.removed.empty()},
                  {"members", std::move(members)}};
    if (record.leaving.valid()) entry["moving_from"] = to_string(record.leaving);
    if (record.loss_accepted.valid()) entry["loss_accepted"] = to_string(record.loss_accepted);
    groups.push_back(std::move(entry));
  }
  return text_of(json{{"groups", std::move(groups)}});
}

SpaceInfo space_of(const ClusterState& state, std::uint32_t near_full_percent) {
  std::uint64_t total = 0;
  std::uint64_t available = 0;
  std::uint64_t working = 0;  // capacity of those whose space is available
  SpaceInfo space;
  for (const auto& [id, target] : state.targets) {
    if (target.record.lost || target.record.retired) continue;
    space.known = space.known && state.fitness(id) != Fitness::kUnknown;
    total += target.record.capacity_bytes;
    if (state.fitness(id) != Fitness::kFit || state.read_only(id)) continue;
    working += target.record.capacity_bytes;
    available += target.available_bytes;
    // One full target is enough: a group with a member there takes no more.
    space.near_full = space.near_full || target.condition == TargetCondition::kNearFull ||
                      target.condition == TargetCondition::kFull ||
                      static_cast<double>(target.used_bytes) * 100 >
                          static_cast<double>(target.record.capacity_bytes) * near_full_percent;
  }
  space.scarce =
      static_cast<double>(available) * 100 < static_cast<double>(working) * (100 - near_full_percent);
  std::uint64_t replicas = 1;
  for (const auto& [id, pool] : state.pools) replicas = std::max<std::uint64_t>(replicas, pool.replicas);
  space.total_bytes = total / replicas;
  space.available_bytes = available / replicas;
  return space;
}

}  // namespace cairn::meta
