#include "meta/cluster_service.h"

#include <fmt/format.h>

namespace cairn::meta {
namespace {

namespace method = rpc::method;

// A chunkserver's disks, groups and labels are few; more is an attack or damage, and must not make us
// allocate.
constexpr unsigned kWireTargetsMax = 256;
constexpr unsigned kProgressMax = 1 << 16;
constexpr unsigned kWireLabelsMax = 64;

Result<> bounded(std::string_view what, unsigned count, unsigned max) {
  if (count <= max) return {};
  return fail(Code::kInvalidArgument, fmt::format("{} {}: at most {} are allowed", count, what, max));
}

Result<std::vector<std::string>> read_labels(capnp::List<capnp::Text>::Reader list) {
  TRYV(bounded("labels", list.size(), kWireLabelsMax));
  std::vector<std::string> labels;
  for (auto label : list) labels.emplace_back(label.cStr(), label.size());
  return labels;
}

// A state that we do not know (a newer chunkserver) is one that takes no new groups.
TargetCondition read_condition(schema::TargetState state) {
  switch (state) {
    case schema::TargetState::OK:
      return TargetCondition::kOk;
    case schema::TargetState::NEAR_FULL:
      return TargetCondition::kNearFull;
    case schema::TargetState::FULL:
      return TargetCondition::kFull;
    case schema::TargetState::FAILED:
      return TargetCondition::kFailed;
    case schema::TargetState::READ_ONLY:
      return TargetCondition::kReadOnly;
    case schema::TargetState::SLOW:
      return TargetCondition::kSlow;
  }
  return TargetCondition::kFull;
}

ProgressState read_progress_state(schema::HeartbeatRequest::Progress::State state) {
  using State = schema::HeartbeatRequest::Progress::State;
  switch (state) {
    case State::COPYING:
      return ProgressState::kCopying;
    case State::CAUGHT_UP:
      return ProgressState::kCaughtUp;
    case State::RECONCILING:
      return ProgressState::kReconciling;
    case State::RECONCILED:
      return ProgressState::kReconciled;
    case State::FAILED:
      return ProgressState::kFailed;
  }
  return ProgressState::kFailed;
}

Result<std::vector<ReportedTarget>> read_targets(capnp::List<schema::TargetReport>::Reader list) {
  TRYV(bounded("targets", list.size(), kWireTargetsMax));
  std::vector<ReportedTarget> targets;
  for (auto report : list) {
    ReportedTarget target;
    target.id = TargetId(report.getId());
    target.condition = read_condition(report.getState());
    target.capacity_bytes = report.getCapacity();
    target.used_bytes = report.getUsed();
    target.available_bytes = report.getAvailable();
    target.chunks = report.getChunks();
    targets.push_back(target);
  }
  return targets;
}

Result<JoinInput> read_join(schema::JoinRequest::Reader body) {
  JoinInput input;
  input.address = body.getAddress().cStr();
  TRY(input.labels, read_labels(body.getLabels()));
  return input;
}

Result<RegisterInput> read_register(schema::RegisterRequest::Reader body) {
  RegisterInput input;
  input.server = ServerId(body.getServer());
  input.address = body.getAddress().cStr();
  TRY(input.labels, read_labels(body.getLabels()));
  input.boot = body.getBoot();
  const auto journal = body.getJournal();
  input.journal = {Era(journal.getEra()), journal.getTerm(), journal.getIndex()};
  TRY(input.targets, read_targets(body.getTargets()));
  return input;
}

Result<HeartbeatInput> read_heartbeat(schema::HeartbeatRequest::Reader body) {
  HeartbeatInput input;
  input.server = ServerId(body.getServer());
  input.boot = body.getBoot();
  input.routing_version = body.getRoutingVersion();
  input.fences = body.getFences();
  input.purges = body.getPurges();
  TRY(input.targets, read_targets(body.getTargets()));
  const auto progress = body.getProgress();
  TRYV(bounded("progress reports", progress.size(), kProgressMax));
  for (auto entry : progress) {
    ReportedProgress reported;
    reported.group = {PoolId(entry.getGroup().getPool()), entry.getGroup().getSlot()};
    reported.target = TargetId(entry.getTarget());
    reported.report.epoch = Epoch(entry.getEpoch());
    reported.report.state = read_progress_state(entry.getState());
    reported.report.chunks_left = entry.getChunksLeft();
    reported.report.bytes_left = entry.getBytesLeft();
    reported.report.bytes_copied = entry.getBytesCopied();
    input.progress.push_back(reported);
  }
  input.foreground_ms = body.getForegroundMs();
  input.corrupt_found = body.getCorruptFound();
  input.corrupt_repaired = body.getCorruptRepaired();
  input.unknown_chunks = body.getUnknownChunks();
  const auto left_over = body.getLeftovers();
  TRYV(bounded("groups left over", left_over.size(), kProgressMax));
  for (auto entry : left_over)
    input.left_over.push_back(
        {{PoolId(entry.getGroup().getPool()), entry.getGroup().getSlot()}, TargetId(entry.getTarget())});
  return input;
}

std::uint32_t lease_ms(const ClusterCore& core) {
  return static_cast<std::uint32_t>(core.config().lease.count());
}

rpc::Task<Result<rpc::OutMessage>> join(ClusterCore& core, rpc::Request request) {
  CO_TRY(JoinInput input, read_join(request.body<method::Join>()));
  auto joined = co_await core.join(std::move(input));
  if (!joined) co_return fail(joined.error());
  rpc::OutMessage reply;
  auto body = reply.body<schema::JoinReply>();
  body.setCluster(core.cluster().value());
  body.setServer(joined->server.value());
  body.setEra(joined->era.value());
  co_return std::move(reply);
}

rpc::Task<Result<rpc::OutMessage>> register_process(ClusterCore& core, TimePoint arrived,
                                                    rpc::Request request) {
  CO_TRY(RegisterInput input, read_register(request.body<method::Register>()));
  auto done = co_await core.register_process(std::move(input), request.peer, arrived, request.deadline);
  if (!done) co_return fail(done.error());
  rpc::OutMessage reply;
  auto body = reply.body<schema::RegisterReply>();
  body.setLeaseMs(lease_ms(core));
  body.setHeartbeatMs(static_cast<std::uint32_t>(core.config().heartbeat.count()));
  body.setEra(done->era.value());
  body.setMinReplicas(done->min_replicas);
  co_return std::move(reply);
}

void write_beat(const ClusterCore::Beat& beat, std::uint64_t known, schema::HeartbeatReply::Builder body) {
  beat.table->write_since(known, body.initRouting());
  body.setFences(beat.fences.sequence);
  auto ended = body.initEnded(static_cast<unsigned>(beat.fences.ended.size()));
  for (unsigned i = 0; i < ended.size(); ++i) ended.set(i, beat.fences.ended[i].value());
  body.setEndedBelow(beat.fences.ended_below.value());
  auto purges = body.initPurges(static_cast<unsigned>(beat.purges.size()));
  for (unsigned i = 0; i < purges.size(); ++i) {
    const PurgeQueue::Row& row = beat.purges[i];
    purges[i].setSequence(row.sequence);
    purges[i].setData(row.order.data.value());
    purges[i].setPool(row.order.pool.value());
    purges[i].setChunks(row.order.chunks);
  }
  auto journal = body.initJournal();
  journal.setEra(beat.journal.era.value());
  journal.setTerm(beat.journal.term);
  journal.setIndex(beat.journal.index);
  auto retired = body.initRetired(static_cast<unsigned>(beat.retired.size()));
  for (unsigned i = 0; i < retired.size(); ++i) retired.set(i, beat.retired[i].value());
  auto drops = body.initDrops(static_cast<unsigned>(beat.drops.size()));
  for (unsigned i = 0; i < drops.size(); ++i) {
    auto group = drops[i].initGroup();
    group.setPool(beat.drops[i].group.pool.value());
    group.setSlot(beat.drops[i].group.slot);
    drops[i].setTarget(beat.drops[i].target.value());
    drops[i].setEpoch(beat.drops[i].epoch.value());
  }
}

rpc::Task<Result<rpc::OutMessage>> heartbeat(ClusterCore& core, TimePoint arrived, rpc::Request request) {
  CO_TRY(HeartbeatInput input, read_heartbeat(request.body<method::Heartbeat>()));
  const std::uint64_t known = input.routing_version;
  auto beat = co_await core.heartbeat(std::move(input), request.peer, arrived, request.deadline);
  if (!beat) co_return fail(beat.error());
  rpc::OutMessage reply;
  auto body = reply.body<schema::HeartbeatReply>();
  body.setLeaseMs(lease_ms(core));
  write_beat(*beat, known, body);
  co_return std::move(reply);
}

rpc::Task<Result<rpc::OutMessage>> routing(const ClusterCore& core, rpc::Request request) {
  const auto table = core.table();
  if (!table) co_return fail(Code::kStarting, "the metadata server is starting: try again");
  rpc::OutMessage reply;
  table->write_since(request.body<method::GetRouting>().getKnown(), reply.body<schema::Routing>());
  co_return std::move(reply);
}

rpc::Task<Result<rpc::OutMessage>> unknown(rpc::Request request) {
  co_return fail(Code::kUnimplemented,
                 fmt::format("{} is not a request to the cluster side", rpc::method_name(request.method)));
}

rpc::Task<Result<rpc::OutMessage>> status(ClusterCore& core, rpc::Request request) {
  using What = schema::StatusRequest::What;
  auto page = ClusterCore::StatusPage::kStatus;
  switch (request.body<method::Status>().getWhat()) {
    case What::STATUS:
      break;
    case What::SERVERS:
      page = ClusterCore::StatusPage::kServers;
      break;
    case What::GROUPS:
      page = ClusterCore::StatusPage::kGroups;
      break;
    case What::SESSIONS:
      co_return fail(Code::kInvalidArgument, "the list of sessions is the namespace side's");
  }
  auto json = co_await core.status(page);
  if (!json) co_return fail(json.error());
  rpc::OutMessage reply;
  reply.body<schema::StatusReply>().setJson(*json);
  co_return std::move(reply);
}

rpc::Task<Result<rpc::OutMessage>> admin(ClusterCore& core, rpc::Request request) {
  using Command = schema::AdminRequest::Command;
  const auto body = request.body<method::Admin>();
  auto command = ClusterCore::AdminCommand::kDrain;
  switch (body.getCommand()) {
    case Command::DRAIN:
      break;
    case Command::UNDRAIN:
      command = ClusterCore::AdminCommand::kUndrain;
      break;
    case Command::FORGET:
      command = ClusterCore::AdminCommand::kForget;
      break;
    default:
      co_return fail(Code::kUnimplemented,
                     "this metadata server does not know the order: it is older than the program that "
                     "sent it");
  }
  const Loss loss = body.getAcceptLoss() ? Loss::kAccept : Loss::kRefuse;
  auto done = co_await core.admin(command, ServerId(body.getServer()), loss, request.deadline);
  if (!done) co_return fail(done.error());
  rpc::OutMessage reply;
  reply.body<schema::Empty>();
  co_return std::move(reply);
}

}  // namespace

bool cluster_serves(std::uint16_t number) {
  switch (number) {
    case method::GetRouting::kNumber:
    case method::Status::kNumber:
    case method::Admin::kNumber:
    case method::Join::kNumber:
    case method::Register::kNumber:
    case method::Heartbeat::kNumber:
      return true;
    default:
      return false;
  }
}

rpc::Task<Result<rpc::OutMessage>> handle_cluster_request(ClusterCore& core, Clock& clock,
                                                          rpc::Request request) {
  const TimePoint arrived = clock.now();  // leases are counted from here: not before the sender sent it
  switch (request.method) {
    case method::GetRouting::kNumber:
      return routing(core, std::move(request));
    case method::Status::kNumber:
      return status(core, std::move(request));
    case method::Admin::kNumber:
      return admin(core, std::move(request));
    case method::Join::kNumber:
      return join(core, std::move(request));
    case method::Register::kNumber:
      return register_process(core, arrived, std::move(request));
    case method::Heartbeat::kNumber:
      return heartbeat(core, arrived, std::move(request));
    default:
      return unknown(std::move(request));
  }
}

}  // namespace cairn::meta
