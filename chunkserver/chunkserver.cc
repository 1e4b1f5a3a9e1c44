#include "chunkserver/chunkserver.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::string_view kFencesKey = "fences";
constexpr std::string_view kJournalKey = "journal";
constexpr std::uint8_t kJournalFormat = 1;
constexpr std::uint64_t kFullBelow = 16 << 20;

rpc::ConnectionLimits connection_limits() {
  rpc::ConnectionLimits limits;
  // Hops of one connection wait for hops on others: with too small a window chains that cross could block
  // each other.
  limits.requests_in_flight = 2048;
  limits.payload_bytes_in_flight = 96 << 20;
  limits.clients_payload = std::make_shared<rpc::PayloadBudget>(192 << 20);
  return limits;
}

std::string encode_position(const JournalPosition& position) {
  std::string out;
  ByteWriter writer(out);
  writer.u8(kJournalFormat);
  writer.u16(position.era.value());
  writer.u64(position.term);
  writer.u64(position.index);
  return out;
}

Result<JournalPosition> decode_position(std::string_view bytes) {
  ByteReader reader(bytes);
  const std::uint8_t format = reader.u8();
  JournalPosition position;
  position.era = Era(reader.u16());
  position.term = reader.u64();
  position.index = reader.u64();
  if (format != kJournalFormat || !reader.done())
    return fail(Code::kCorrupt, "the remembered journal position does not decode");
  return position;
}

}  // namespace

Chunkserver::Chunkserver(rpc::Runtime& runtime, rpc::Transport& transport, Rng& rng,
                         const ChunkserverConfig& config, std::vector<OpenedTarget> targets, GiveUp give_up)
    : runtime_(runtime),
      transport_(transport),
      config_(config),
      give_up_(std::move(give_up)),
      cluster_(targets.front().engine->superblock().cluster),
      server_id_(targets.front().engine->superblock().server),
      boot_(rng.next()),
      disks_(make_disks(std::move(targets), config)),
      lease_(runtime.clock()),
      sessions_(runtime),
      peers_(runtime, transport, identity_),
      copies_(runtime, config.copies_in_flight),
      copy_bytes_(runtime, config.copy_bytes_in_flight),
      compares_(runtime, config.groups_compared_at_once),
      write_bytes_(runtime, config.write_bytes_in_flight),
      tasks_(runtime),
      env_{runtime, tasks_, peers_,  sessions_,   lease_,    counters_,
           purged_, pacer_, copies_, copy_bytes_, compares_, [this] { link_.heartbeat_now(); }},
      link_(runtime, transport, identity_, config.meta, lease_, *this),
      purger_(
          runtime, this->targets(), purged_, [this] { return joins(); }, env_.heartbeat_now),
      reclaimer_(runtime, this->targets(), groups_, env_.heartbeat_now),
      service_(env_, groups_, this->targets(), server_id_, write_bytes_, latency_),
      fence_wake_(runtime) {
  identity_.role = rpc::Role::kChunkserver;
  identity_.cluster = [cluster = cluster_] { return cluster; };
  identity_.id = [id = server_id_] { return id.value(); };
  identity_.program = fmt::format("cairn-chunkserver {} pid {}", to_string(server_id_), ::getpid());
  for (const Disk& disk : disks_) disk.target->on_failure([this] { link_.heartbeat_now(); });
}

std::vector<Chunkserver::Disk> Chunkserver::make_disks(std::vector<OpenedTarget> targets,
                                                       const ChunkserverConfig& config) {
  std::vector<Disk> disks;
  const TargetThreads threads{config.disk_threads, config.sync_threads};
  for (OpenedTarget& opened : targets)
    disks.push_back({std::make_unique<Target>(std::move(opened.engine), std::move(opened.path), threads),
                     std::make_unique<GroupMemory>()});
  return disks;
}

Result<std::unique_ptr<Chunkserver>> Chunkserver::start(rpc::Runtime& runtime, rpc::Transport& transport,
                                                        Rng& rng, const ChunkserverConfig& config,
                                                        std::vector<OpenedTarget> targets, GiveUp give_up) {
  const disk::Superblock first = targets.front().engine->superblock();
  std::vector<disk::ChunkEngine*> engines;
  for (const OpenedTarget& target : targets) {
    const disk::Superblock& block = target.engine->superblock();
    if (block.cluster != first.cluster || block.server != first.server)
      return fail(
          Code::kConfig,
          fmt::format(
              "{} belongs to server {} of cluster {}, but {} to server {} of cluster {}: data_dirs must "
              "name the disks of one server",
              target.path, to_string(block.server), to_string(block.cluster), targets.front().path,
              to_string(first.server), to_string(first.cluster)));
    engines.push_back(target.engine.get());
  }
  std::unique_ptr<Chunkserver> server(
      new Chunkserver(runtime, transport, rng, config, std::move(targets), std::move(give_up)));
  auto restored = server->restore(engines);
  if (restored) restored = server->listen();
  if (!restored) {
    server->stop_hard();
    return fail(std::move(restored.error()));
  }
  server->tasks_.spawn(runtime.make_strand(), server->confirm_fences());
  server->tasks_.spawn(runtime.make_strand(), server->tick());
  server->purger_.start(server->tasks_);
  server->reclaimer_.start(server->tasks_);
  server->link_.start(server->tasks_);
  return server;
}

Chunkserver::~Chunkserver() {
  stop_hard();
}

// A join that failed for lack of space does not count: purges are what makes space.
bool Chunkserver::joins() const {
  return std::ranges::any_of(groups_.all(), [](const auto& group) {
    const auto progress = group->progress();
    return progress && progress->state == GroupProgress::State::kCopying;
  });
}

// What the targets remember. The fence counts only as far as every target knows it.
Result<> Chunkserver::restore(const std::vector<disk::ChunkEngine*>& engines) {
  std::uint64_t fences = UINT64_MAX;
  for (std::size_t i = 0; i < engines.size(); ++i) {
    const std::string& path = disks_[i].target->path();
    if (auto restored = disks_[i].memory->restore(*engines[i]); !restored)
      return fail(restored.error().with(path));
    TRY(auto ended, engines[i]->get_value(kFencesKey));
    std::uint64_t sequence = 0;
    if (ended) {
      auto decoded = sessions_.restore(*ended);
      if (!decoded) return fail(decoded.error().with(path));
      sequence = *decoded;
    }
    fences = std::min(fences, sequence);
    TRY(auto position, engines[i]->get_value(kJournalKey));
    if (position) {
      auto decoded = decode_position(*position);
      if (!decoded) return fail(decoded.error().with(path));
      journal_ = std::max(journal_, *decoded);
    }
  }
  journal_kept_ = journal_;
  fences_done_ = fences_wanted_ = fences;
  return purger_.restore(engines);
}

Result<> Chunkserver::listen() {
  TRY(server_,
      rpc::Server::start(runtime_, transport_, config_.listen, service_, identity_, connection_limits()));
  address_ = config_.advertise.empty() ? server_->address() : config_.advertise;
  log_info("listening", "address={} advertise={} server={} cluster={} targets={}", server_->address(),
           address_, to_string(server_id_), to_string(cluster_), disks_.size());
  return {};
}

void Chunkserver::stop() {
  if (ended_) return;
  service_.refuse_clients();
  const auto until = std::chrono::steady_clock::now() + config_.drain;
  while (service_.clients_under_way() > 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  end();
  log_info("stopped", "server={}", to_string(server_id_));
}

void Chunkserver::stop_hard() {
  if (ended_) return;
  service_.refuse_clients();
  end();
}

void Chunkserver::end() {
  ended_ = true;
  lease_.end();
  link_.close();
  if (server_) server_->stop(Deadline::after(runtime_.clock(), std::chrono::milliseconds(100)));
  peers_.close();
  tasks_.close_blocking();
}

std::vector<Target*> Chunkserver::targets() const {
  std::vector<Target*> out;
  for (const Disk& disk : disks_) out.push_back(disk.target.get());
  return out;
}

// --- what the metadata server is told ---

void Chunkserver::fill_targets(capnp::List<schema::TargetReport>::Builder to) const {
  for (unsigned i = 0; i < disks_.size(); ++i) {
    const Target& target = *disks_[i].target;
    const disk::Usage usage = target.usage();
    auto report = to[i];
    report.setId(target.id().value());
    report.setCapacity(usage.capacity_bytes);
    report.setUsed(usage.used_bytes);
    report.setAvailable(target.available());
    report.setChunks(usage.chunks);
    report.setBootCount(target.superblock().boot_count);
    const std::uint64_t total = usage.used_bytes + usage.available_bytes;
    const bool near_full = usage.used_bytes >= total / 100 * config_.near_full_percent;
    report.setState(target.failed()                   ? schema::TargetState::FAILED
                    : target.available() < kFullBelow ? schema::TargetState::FULL
                    : near_full                       ? schema::TargetState::NEAR_FULL
                                                      : schema::TargetState::OK);
  }
}

rpc::OutMessage Chunkserver::register_request() {
  rpc::OutMessage out;
  auto body = out.body<schema::RegisterRequest>();
  body.setServer(server_id_.value());
  body.setAddress(address_);
  auto labels = body.initLabels(static_cast<unsigned>(config_.labels.size()));
  for (unsigned i = 0; i < config_.labels.size(); ++i) labels.set(i, config_.labels[i]);
  body.setBoot(boot_);
  {
    std::lock_guard lock(mutex_);
    set_position(body.initJournal(), journal_);
  }
  fill_targets(body.initTargets(static_cast<unsigned>(disks_.size())));
  return out;
}

rpc::OutMessage Chunkserver::heartbeat_request() {
  rpc::OutMessage out;
  auto body = out.body<schema::HeartbeatRequest>();
  body.setServer(server_id_.value());
  body.setBoot(boot_);
  body.setRoutingVersion(routing_version_.load());
  body.setFences(fences_done_.load());
  body.setPurges(purger_.done());
  fill_targets(body.initTargets(static_cast<unsigned>(disks_.size())));
  struct Report {
    GroupId group;
    TargetId target;
    GroupProgress progress;
  };
  std::vector<Report> reports;
  std::uint64_t unknown = 0;
  for (const auto& group : groups_.all()) {
    unknown += group->aside_count();
    if (auto progress = group->progress()) reports.push_back({group->id(), group->target().id(), *progress});
  }
  auto list = body.initProgress(static_cast<unsigned>(reports.size()));
  for (unsigned i = 0; i < reports.size(); ++i) {
    set_group(list[i].initGroup(), reports[i].group);
    list[i].setTarget(reports[i].target.value());
    list[i].setEpoch(reports[i].progress.epoch.value());
    list[i].setState(static_cast<schema::HeartbeatRequest::Progress::State>(reports[i].progress.state));
    list[i].setChunksLeft(reports[i].progress.chunks_left);
    list[i].setBytesLeft(reports[i].progress.bytes_left);
    list[i].setBytesCopied(reports[i].progress.bytes_copied);
  }
  const std::vector<LeftOver> left_over = reclaimer_.left_over();
  auto leftovers = body.initLeftovers(static_cast<unsigned>(left_over.size()));
  for (unsigned i = 0; i < left_over.size(); ++i) {
    set_group(leftovers[i].initGroup(), left_over[i].group);
    leftovers[i].setTarget(left_over[i].target.value());
  }
  body.setForegroundMs(foreground_ms_.load());
  body.setCorruptFound(counters_.corrupt_found.load());
  body.setCorruptRepaired(counters_.corrupt_repaired.load());
  body.setUnknownChunks(unknown);
  return out;
}

// --- what it orders ---

rpc::Task<Result<>> Chunkserver::obey(Orders orders) {
  // Before any configuration: a session that ended must not write in an epoch that is only now learned of.
  sessions_.end(orders.ended, orders.ended_below);
  if (orders.fences > fences_wanted_.load()) {
    fences_wanted_ = orders.fences;
    fence_wake_.set();
  }
  purger_.add(orders.purges);
  for (TargetId target : orders.retired) log_debug("target_retired", "target={}", to_string(target));
  {
    std::lock_guard lock(mutex_);
    journal_ = std::max(journal_, orders.journal);
  }
  const std::uint64_t version = orders.routing.version;
  if (version > routing_version_.load()) {
    co_await apply_routing(std::move(orders.routing));
    routing_version_ = version;
    link_.heartbeat_now();  // that it is in force here is what removed members' successors wait for
  }
  for (const DropOrder& order : orders.drops) co_await take_drop(order);
  co_return Result<>();
}

void Chunkserver::refused_for_good(const Error& why) {
  std::string disks;
  for (const Disk& disk : disks_) disks += (disks.empty() ? "" : ", ") + disk.target->path();
  const std::string_view advice =
      why.code() == Code::kWrongCluster
          ? "set 'meta' in the config file to the metadata server of that cluster, or set data_dirs to empty "
            "folders to join this one with no data"
          : "set data_dirs to empty folders to join it anew with no data";
  give_up_(
      Error(why.code(), fmt::format("{} (its disks {} belong to server {} of cluster {}): {}", why.message(),
                                    disks, to_string(server_id_), to_string(cluster_), advice)));
}

rpc::Task<> Chunkserver::apply_routing(RoutingChange change) {
  {
    std::lock_guard lock(mutex_);
    for (const PoolEntry& pool : change.pools) {
      pools_[pool.id] = pool;
      groups_.set_slots(pool.id, pool.slots);
    }
    for (GroupConfig& config : change.groups) {
      auto pool = pools_.find(config.id.pool);
      if (pool == pools_.end()) continue;
      config.slots = pool->second.slots;
      config.min_replicas = pool->second.min_replicas;
    }
  }
  reclaimer_.routed(change.groups);
  for (const auto& [server, address] : change.servers) peers_.set_address(server, address);
  for (Disk& disk : disks_) {
    std::vector<GroupConfig> configs;
    for (const GroupConfig& config : change.groups) {
      const bool member = std::ranges::any_of(
          config.members, [&](const GroupMember& m) { return m.target == disk.target->id(); });
      if (member || groups_.get(config.id, disk.target->id())) configs.push_back(config);
    }
    if (!configs.empty()) co_await apply_to_disk(&disk, std::move(configs));
  }
  if (!change.full) co_return;
  for (const auto& group : groups_.all()) {
    const bool named = std::ranges::any_of(
        change.groups, [&](const GroupConfig& config) { return config.id == group->id(); });
    if (!named) group->leave(group->view().epoch);
  }
}

// Epochs are on disk before anything is done in them; all groups of a disk with one sync.
rpc::Task<> Chunkserver::apply_to_disk(Disk* disk, std::vector<GroupConfig> configs) {
  Target& target = *disk->target;
  std::vector<GroupMemory::Entry> entries;
  std::vector<GroupId> unknown;
  for (const GroupConfig& config : configs) {
    if (!groups_.get(config.id, target.id())) unknown.push_back(config.id);
    const Place place = place_of(config, target.id());
    if (place.role == Role::kOut) continue;
    entries.push_back({config.id, {config.epoch, config.reconcile ? config.epoch : Epoch()}});
  }
  using Asides = std::vector<std::vector<ChunkId>>;
  Target::Work<Asides> work = [disk, entries, unknown](disk::ChunkEngine& engine) -> Result<Asides> {
    TRYV(disk->memory->remember(engine, entries));
    Asides asides;
    for (const GroupId& id : unknown) {
      TRY(auto value, engine.get_value(aside_prefix() + to_string(id)));
      std::vector<ChunkId> chunks;
      if (value) {
        TRY(chunks, decode_aside(*value));
      }
      asides.push_back(std::move(chunks));
    }
    return asides;
  };
  auto asides = co_await target.run_durable<Asides>(std::move(work));
  if (!asides) {
    log_error("routing_not_applied", "target={} error={}", to_string(target.id()),
              log_quote(asides.error().to_string()));
    target.note(Error(Code::kIo, asides.error().message()));
    co_return;
  }
  for (std::size_t i = 0; i < unknown.size(); ++i)
    groups_.add(std::make_shared<Group>(unknown[i], target, *disk->memory, env_, std::move((*asides)[i])));
  for (const GroupConfig& config : configs) {
    auto group = groups_.get(config.id, target.id());
    if (!group) continue;
    co_await group->stop_dropping();
    group->configure(config);
  }
}

// The order is checked against the routing table that is in force here; a group of which this process was
// never a member gets its object first. Not beside apply_routing(): both run one after the other in obey().
rpc::Task<> Chunkserver::take_drop(DropOrder order) {
  const auto config = reclaimer_.config_for(order);
  auto disk = std::ranges::find_if(disks_, [&](const Disk& d) { return d.target->id() == order.target; });
  if (!config || disk == disks_.end() || disk->target->failed()) {
    log_debug("drop_refused", "group={} target={} epoch={}", to_string(order.group), to_string(order.target),
              to_string(order.epoch));
    co_return;
  }
  if (!groups_.get(order.group, order.target)) {
    std::vector<GroupConfig> configs{*config};
    co_await apply_to_disk(&*disk, std::move(configs));
  }
  if (auto group = groups_.get(order.group, order.target)) reclaimer_.drop(std::move(group), order.epoch);
}

rpc::Task<Result<>> Chunkserver::remember_everywhere(std::string_view key, std::string value) {
  for (const Disk& disk : disks_) {
    if (disk.target->failed()) continue;
    Target::Work<void> work = [key, value](disk::ChunkEngine& engine) {
      return engine.set_value(key, value);
    };
    auto kept = co_await disk.target->run_durable<void>(std::move(work));
    if (!kept && !disk.target->failed()) co_return kept;
  }
  co_return Result<>();
}

rpc::Task<> Chunkserver::confirm_fences() {
  for (;;) {
    auto woken = co_await fence_wake_.wait(Deadline::never());
    if (!woken) co_return;
    fence_wake_.reset();
    while (fences_done_.load() < fences_wanted_.load()) {
      const std::uint64_t sequence = fences_wanted_.load();
      std::string value = sessions_.encode(sequence);
      auto kept = co_await remember_everywhere(kFencesKey, std::move(value));
      if (kept) kept = co_await sessions_.drained(Deadline::after(runtime_.clock(), std::chrono::seconds(5)));
      if (kept) {
        fences_done_ = sequence;
        link_.heartbeat_now();
        continue;
      }
      if (kept.error().code() == Code::kCancelled) co_return;
      log_warn("fence_waits", "sequence={} error={}", sequence, log_quote(kept.error().to_string()));
      auto slept = co_await rpc::sleep_for(runtime_, std::chrono::milliseconds(100));
      if (!slept) co_return;
    }
  }
}

rpc::Task<> Chunkserver::tick() {
  for (;;) {
    auto slept = co_await rpc::sleep_for(runtime_, std::chrono::seconds(1));
    if (!slept) co_return;
    for (const Disk& disk : disks_) {
      Target* target = disk.target.get();
      if (target->failed()) continue;
      Target::Work<void> work = [target](disk::ChunkEngine&) -> Result<> {
        target->refresh();
        return {};
      };
      auto refreshed = co_await target->run<void>(std::move(work));
      if (!refreshed) log_debug("usage_unknown", "error={}", log_quote(refreshed.error().to_string()));
    }
    const LatencyMeter::Mean mean = latency_.take();
    pacer_.adjust(mean);
    foreground_ms_ = static_cast<std::uint32_t>(mean.mean.count() / 1'000'000);
    JournalPosition position;
    {
      std::lock_guard lock(mutex_);
      if (journal_ == journal_kept_) continue;
      position = journal_;
    }
    std::string value = encode_position(position);
    auto kept = co_await remember_everywhere(kJournalKey, std::move(value));
    if (!kept) continue;
    std::lock_guard lock(mutex_);
    journal_kept_ = position;
  }
}

}  // namespace cairn::chunkserver
