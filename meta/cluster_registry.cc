#include "meta/cluster_registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "meta/cluster_reconfigure.h"
#include "store/base/log.h"

namespace cairn::meta {
namespace {

constexpr std::size_t kTargetsMax = 256;  // of one server
constexpr std::size_t kTextMax = 512;
constexpr std::size_t kLabelsMax = 32;

// It is shown to operators: in JSON, on terminals.
bool printable(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto first = static_cast<unsigned char>(text[at]);
    if (first < 0x20 || first == 0x7f) return false;
    const std::size_t length = first < 0x80                    ? 1
                               : first >= 0xc2 && first < 0xe0 ? 2
                               : first >= 0xe0 && first < 0xf0 ? 3
                               : first >= 0xf0 && first < 0xf5 ? 4
                                                               : 0;
    if (length == 0 || at + length > text.size()) return false;
    for (std::size_t i = 1; i < length; ++i)
      if ((static_cast<unsigned char>(text[at + i]) & 0xc0) != 0x80) return false;
    at += length;
  }
  return true;
}

Result<> check_identity(const std::string& address, const std::vector<std::string>& labels) {
  if (address.empty() || address.size() > kTextMax)
    return fail(Code::kInvalidArgument, "a chunkserver must give the address at which others reach it");
  if (!printable(address))
    return fail(Code::kInvalidArgument,
                "a chunkserver's address must be text (UTF-8, no control characters)");
  if (labels.size() > kLabelsMax)
    return fail(Code::kInvalidArgument,
                fmt::format("{} labels: at most {} are allowed", labels.size(), kLabelsMax));
  for (const std::string& label : labels) {
    if (!printable(label))
      return fail(Code::kInvalidArgument, "a label must be text (UTF-8, no control characters)");
    if (label.size() > kTextMax || label.find('=') == std::string::npos)
      return fail(Code::kInvalidArgument,
                  fmt::format("label '{}': write it as name=value", label.substr(0, 80)));
  }
  return {};
}

Result<ClusterServer*> find_server(ClusterState& state, ServerId id) {
  auto found = state.servers.find(id);
  if (found == state.servers.end())
    return fail(Code::kNotFound,
                fmt::format("server {} is not known to this cluster: it was forgotten, or its disks are of "
                            "another one. Empty its data directory to let it join anew",
                            to_string(id)));
  return &found->second;
}

void put_server(Txn& txn, const ClusterServer& server) {
  txn.put(server_key(server.record.id), server.record.encode());
}

void apply_report(ClusterTarget& target, const ReportedTarget& report) {
  target.condition = report.condition;
  target.used_bytes = std::min(report.used_bytes, report.capacity_bytes);
  target.available_bytes = std::min(report.available_bytes, report.capacity_bytes);
  target.chunks = report.chunks;
}

}  // namespace

Result<ServerId> join_server(ClusterState& state, Txn& txn, const JoinInput& input, std::uint64_t purges_last,
                             const std::function<bool(ServerId)>& connected) {
  TRYV(check_identity(input.address, input.labels));
  for (auto& [id, server] : state.servers) {
    if (server.record.address != input.address) continue;
    if (server.registered && connected(id))
      return fail(Code::kExists,
                  fmt::format("address {} belongs to server {}, which is connected: give each chunkserver an "
                              "address of its own",
                              input.address, to_string(id)));
    server.record.labels = input.labels;
    put_server(txn, server);
    return id;
  }
  const ServerId id(txn.next_id());
  ClusterServer server;
  server.record.id = id;
  server.record.address = input.address;
  server.record.labels = input.labels;
  server.record.purges_done = purges_last;
  server.purges = purges_last;
  put_server(txn, server);
  state.servers[id] = std::move(server);
  log_info("server_joined", "server={} address={}", to_string(id), input.address);
  return id;
}

Result<> register_server(ClusterState& state, Txn& txn, const RegisterInput& input, TimePoint arrived) {
  TRYV(check_identity(input.address, input.labels));
  if (input.boot == 0) return fail(Code::kInvalidArgument, "register: boot must not be 0");
  TRY(ClusterServer * server, find_server(state, input.server));
  if (input.targets.size() > kTargetsMax)
    return fail(Code::kInvalidArgument,
                fmt::format("register: {} targets, at most {}", input.targets.size(), kTargetsMax));
  std::set<TargetId> present;
  for (const ReportedTarget& report : input.targets) {
    if (!report.id.valid() || !present.insert(report.id).second)
      return fail(Code::kInvalidArgument, "register: a target id is 0 or given twice");
    auto known = state.targets.find(report.id);
    if (known != state.targets.end() && known->second.record.server != input.server)
      return fail(Code::kNeedsOperator,
                  fmt::format("target {} belongs to server {}: bring the disk back there",
                              to_string(report.id), to_string(known->second.record.server)));
  }

  // All checked: from here on nothing fails.
  const bool restarted = server->record.boot != input.boot;
  const bool first = !server->registered && !server->record.registered;
  server->record.address = input.address;
  server->record.labels = input.labels;
  server->record.boot = input.boot;
  server->record.registered = true;
  put_server(txn, *server);
  server->registered = true;
  server->refused = false;
  server->heard = arrived;
  if (restarted) {
    server->routing_known = 0;
    server->fences = 0;
  }
  server->liveness = Liveness::kUp;
  server->death_published = false;
  for (const ReportedTarget& report : input.targets) {
    ClusterTarget& target = state.targets[report.id];
    target.record.id = report.id;
    target.record.server = input.server;
    target.record.capacity_bytes = report.capacity_bytes;
    target.record.lost = false;
    txn.put(target_key(report.id), target.record.encode());
    apply_report(target, report);
  }
  for (auto& [id, target] : state.targets) {
    if (target.record.server != input.server || present.contains(id) || target.record.lost) continue;
    target.record.lost = true;
    txn.put(target_key(id), target.record.encode());
    log_error("target_lost", "target={} server={} note={}", to_string(id), to_string(input.server),
              log_quote("its server came back without it; its groups get replacements"));
  }
  if (!state.first_register) state.first_register = arrived;
  if (first || !state.last_new_server) state.last_new_server = arrived;
  log_info("server_registered", "server={} address={} boot={} restarted={} targets={}",
           to_string(input.server), input.address, hex64(input.boot), restarted, input.targets.size());
  return {};
}

Result<HeartbeatEffect> apply_heartbeat(ClusterState& state, const HeartbeatInput& input,
                                        std::uint64_t purges_visible, TimePoint arrived) {
  TRY(ClusterServer * server, find_server(state, input.server));
  if (!server->registered || server->record.boot != input.boot)
    return fail(Code::kNotServing,
                fmt::format("server {} has not registered this process with this metadata server: register "
                            "first",
                            to_string(input.server)));
  HeartbeatEffect effect;
  effect.reconfigure = server->liveness != Liveness::kUp || server->routing_known != input.routing_version;
  server->heard = std::max(server->heard, arrived);
  server->refused = false;  // it lives after all
  // At once, not with the next reconfiguration: from here on a fence is confirmed only by its own word.
  server->liveness = Liveness::kUp;
  server->death_published = false;
  server->routing_known = input.routing_version;
  server->fences = input.fences;
  server->purges = std::max(server->purges, std::min(input.purges, purges_visible));
  server->corrupt_found = input.corrupt_found;
  server->corrupt_repaired = input.corrupt_repaired;
  server->unknown_chunks = input.unknown_chunks;
  server->groups_left_over = input.left_over.size();
  server->foreground_ms = input.foreground_ms;
  for (const ReportedTarget& report : input.targets) {
    auto target = state.targets.find(report.id);
    if (target == state.targets.end() || target->second.record.server != input.server) continue;
    effect.reconfigure = effect.reconfigure || target->second.condition != report.condition;
    target->second.record.capacity_bytes = report.capacity_bytes;  // journaled at the next register
    apply_report(target->second, report);
  }
  for (const ReportedProgress& progress : input.progress) {
    auto group = state.groups.find(progress.group);
    // Only about the present epoch, and only from a server that has a member in the group.
    if (group == state.groups.end() || progress.report.epoch != group->second.record.epoch ||
        group->second.record.find(progress.target) == nullptr)
      continue;
    const bool member = std::ranges::any_of(group->second.record.members, [&](const GroupMember& m) {
      auto target = state.targets.find(m.target);
      return target != state.targets.end() && target->second.record.server == input.server;
    });
    if (!member) continue;
    ProgressReport& known = group->second.reports[progress.target];
    if (progress.report.bytes_copied > known.bytes_copied)
      effect.bytes_copied += progress.report.bytes_copied - known.bytes_copied;
    effect.reconfigure = effect.reconfigure || (known.state != progress.report.state) ||
                         progress.report.state == ProgressState::kCaughtUp;
    known = progress.report;
  }
  return effect;
}

Result<> set_draining(ClusterState& state, Txn& txn, ServerId id, DrainOrder order) {
  TRY(ClusterServer * server, find_server(state, id));
  server->record.draining = order == DrainOrder::kDrain;
  put_server(txn, *server);
  return {};
}

Result<> forget_server(ClusterState& state, Txn& txn, ServerId id, Loss loss) {
  TRY(const ClusterServer* server, find_server(state, id));
  const bool alive = server->liveness != Liveness::kDead;
  std::set<TargetId> going;
  for (const auto& [target, known] : state.targets)
    if (known.record.server == id && (!alive || known.record.lost)) going.insert(target);
  if (alive && going.empty())
    return fail(Code::kNotPermitted,
                fmt::format("server {} is up and has lost no disk: drain it, stop it, then forget it",
                            to_string(id)));
  std::size_t last_copies = 0;
  for (const auto& [group, known] : state.groups)
    last_copies += std::ranges::all_of(known.record.members, [&](const GroupMember& member) {
      return !member.in_sync || going.contains(member.target) ||
             state.fitness(member.target) == Fitness::kLost;
    });
  if (last_copies > 0 && loss == Loss::kRefuse)
    return fail(
        Code::kNeedsOperator,
        fmt::format("server {} holds the last good copy of {} groups: bring it back, or forget it with "
                    "--accept-loss, which goes on with older copies or none",
                    to_string(id), last_copies));
  for (TargetId target : going) {
    txn.erase(target_key(target));
    state.targets.erase(target);
  }
  if (!alive) {
    txn.erase(server_key(id));
    state.servers.erase(id);
  }
  log_warn("server_forgotten", "server={} targets={} groups_lost={}", to_string(id), going.size(),
           last_copies);
  return {};
}

}  // namespace cairn::meta
