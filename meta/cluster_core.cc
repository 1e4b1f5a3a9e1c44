#include "meta/cluster_core.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "store/base/log.h"

namespace cairn::meta {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(200);
constexpr std::size_t kPurgesPerHeartbeat = 1000;
constexpr std::size_t kFencesPerHeartbeat = 10'000;
constexpr std::size_t kTrimPerStep = 2000;
constexpr std::size_t kDropsPerHeartbeat = 64;
constexpr PoolId kDefaultPool{1};

}  // namespace

ClusterCore::ClusterCore(ClusterParts parts)
    : parts_(std::move(parts)), tasks_(parts_.runtime), wake_(parts_.runtime) {
  links_ =
      std::make_shared<HeartbeatLinks>(parts_.runtime, parts_.transport, parts_.executor, tasks_,
                                       parts_.config.lease, [this](ServerId server) { server_gone(server); });
}

ClusterCore::~ClusterCore() {
  stop();
}

rpc::Task<Result<>> ClusterCore::start() {
  CO_TRYV(check_cluster_config(parts_.config));
  std::function<Result<bool>(Txn&)> load = [this](Txn& txn) -> Result<bool> {
    TRY(state_, ClusterState::load(txn, parts_.clock.now()));
    TRYV(fences_.load(txn));
    TRYV(purges_.load(txn));
    TRYV(guard_.load(txn, parts_.began, state_.servers));
    if (!state_.pools.empty()) return true;
    PoolRecord pool;
    pool.id = kDefaultPool;
    pool.slots = parts_.config.slots;
    pool.replicas = static_cast<std::uint8_t>(parts_.config.replicas);
    pool.min_replicas = static_cast<std::uint8_t>(std::min<std::uint32_t>(2, parts_.config.replicas));
    pool.chunk_size = parts_.config.chunk_bytes;
    pool.failure_domain = parts_.config.failure_domain;
    txn.put(pool_key(pool.id), pool.encode());
    state_.pools[pool.id] = pool;
    log_info("pool_created", "pool={} slots={} replicas={}", pool.id.value(), pool.slots, pool.replicas);
    return true;
  };
  auto loaded = co_await parts_.executor.run<bool>(std::move(load), Durability::kSynced);
  if (!loaded) co_return fail(loaded.error());
  auto first = co_await step();
  if (!first) co_return first;
  started_ = true;
  tasks_.spawn(parts_.runtime.make_strand(), run_steps());
  co_return Result<>();
}

void ClusterCore::stop() {
  tasks_.close_blocking();
  if (!started_) return;
  started_ = false;
  // What was posted to the executor and names this object has run when this returns (or never will).
  std::function<Result<bool>(Txn&)> nothing = [this](Txn&) -> Result<bool> {
    for (Waiter& waiter : waiters_) waiter.event->set();
    waiters_.clear();
    links_->stop();
    return true;
  };
  auto flushed = rpc::block_on(parts_.runtime, parts_.executor.run<bool>(std::move(nothing)));
  if (!flushed)
    log_debug("cluster_stopped_after_executor", "reason={}", log_quote(flushed.error().message()));
}

// --- published
// --------------------------------------------------------------------------------------------------------

std::shared_ptr<const RoutingTable> ClusterCore::table() const {
  std::lock_guard lock(mutex_);
  return table_;
}

SpaceInfo ClusterCore::space() const {
  std::lock_guard lock(mutex_);
  return space_;
}

PoolInfo ClusterCore::default_pool() const {
  const auto table = this->table();
  CHECK(table != nullptr && !table->pools.empty(), "the cluster side has started");
  const PoolRecord& pool = table->pools.front();
  return {pool.id, pool.slots, pool.replicas, pool.min_replicas, pool.chunk_size};
}

void ClusterCore::connected(const std::shared_ptr<rpc::Peer>& peer) {
  if (peer->role() == rpc::Role::kChunkserver) links_->watch(peer);
}

// --- steps
// ------------------------------------------------------------------------------------------------------------

rpc::Task<> ClusterCore::run_steps() {
  for (;;) {
    const Deadline tick = Deadline::after(parts_.clock, kTick);
    auto woken = co_await wake_.wait(tick);
    if (!woken && woken.error().code() == Code::kCancelled) co_return;
    wake_.reset();
    auto done = co_await step();
    if (!done && done.error().code() != Code::kCancelled)
      log_warn("reconfiguration_failed", "reason={}",
               log_quote(done.error().to_string()));  // tried again at the next tick
  }
}

rpc::Task<Result<>> ClusterCore::step() {
  std::function<Result<StepResult>(Txn&)> operation = [this](Txn& txn) { return run_step(txn); };
  auto result = co_await parts_.executor.run<StepResult>(std::move(operation));
  if (!result) co_return fail(result.error());
  if (result->change.journaled || result->purges_new) {
    auto synced = co_await parts_.executor.sync();
    if (!synced) co_return synced;
  }
  publish(*result);
  parts_.executor.post([this, result = std::move(*result)] { finish_step(result); });
  co_return Result<>();
}

Result<ClusterCore::StepResult> ClusterCore::run_step(Txn& txn) {
  StepResult result;
  result.ticket = ++requested_;
  TRY(result.change, reconfigure(state_, txn, parts_.config, shown_, parts_.clock.now(), parts_.rng));
  if (result.change.table) shown_ = result.change.table;
  TRYV(trim_purges(txn));
  result.purges_last = purges_.last();
  result.purges_new = purges_.last() > purges_.visible();
  result.space = space_of(state_, parts_.config.near_full_percent);
  return result;
}

Result<> ClusterCore::trim_purges(Txn& txn) {
  if (purges_.empty()) return {};
  std::uint64_t done = purges_.visible();
  for (const auto& [id, server] : state_.servers)
    if (server.record.registered) done = std::min(done, server.purges);
  if (done <= purges_.trimmed()) return {};
  for (auto& [id, server] : state_.servers) {
    if (!server.record.registered || server.record.purges_done == server.purges) continue;
    server.record.purges_done = server.purges;
    txn.put(server_key(id), server.record.encode());
  }
  TRY(const bool more, purges_.trim(txn, done, kTrimPerStep));
  if (more) wake_.set();
  return {};
}

void ClusterCore::publish(const StepResult& result) {
  std::lock_guard lock(mutex_);
  if (result.change.table) table_ = result.change.table;
  space_ = result.space;
}

void ClusterCore::finish_step(const StepResult& result) {
  completed_ = std::max(completed_, result.ticket);
  for (ServerId id : result.change.dead) {
    auto server = state_.servers.find(id);
    if (server != state_.servers.end() && server->second.liveness == Liveness::kDead)
      server->second.death_published = true;
  }
  const bool purges_new = result.purges_last > purges_.visible();
  purges_.set_visible(result.purges_last);
  if (purges_new) {
    links_->poke_all(shown_version());
  } else {
    for (ServerId id : result.change.concerned) links_->poke(id, shown_version());
  }
  check_waiters();
}

std::shared_ptr<rpc::Event> ClusterCore::after_step(bool needed) {
  if (needed) {
    ++requested_;
    wake_.set();
  }
  if (requested_ == completed_) return nullptr;
  auto event = std::make_shared<rpc::Event>(parts_.runtime);
  waiters_.push_back({[this, ticket = requested_] { return completed_ >= ticket; }, event});
  return event;
}

void ClusterCore::check_waiters() {
  std::erase_if(waiters_, [](const Waiter& waiter) {
    // The only other reference is the waiting coroutine's: it is gone when it timed out.
    const bool done = waiter.event.use_count() == 1 || waiter.ready();
    if (done) waiter.event->set();
    return done;
  });
}

void ClusterCore::server_gone(ServerId id) {
  auto server = state_.servers.find(id);
  if (server == state_.servers.end()) return;
  server->second.refused = true;
  wake_.set();
}

// --- chunkservers
// -----------------------------------------------------------------------------------------------------

rpc::Task<Result<ClusterCore::Joined>> ClusterCore::join(JoinInput input) {
  std::function<Result<Joined>(Txn&)> operation = [this,
                                                   input = std::move(input)](Txn& txn) -> Result<Joined> {
    if (went_back_) return fail(*went_back_);
    auto connected = [this](ServerId id) { return links_->connected(id); };
    TRY(const ServerId server, join_server(state_, txn, input, purges_.last(), connected));
    return Joined{server, txn.era()};
  };
  auto joined = co_await parts_.executor.run<Joined>(std::move(operation), Durability::kSynced);
  co_return joined;
}

rpc::Task<Result<ClusterCore::Registered>> ClusterCore::register_process(RegisterInput input,
                                                                         std::shared_ptr<rpc::Peer> peer,
                                                                         TimePoint arrived,
                                                                         Deadline deadline) {
  struct Accepted {
    Era era;
    std::shared_ptr<rpc::Event> step;
  };
  auto found = std::make_shared<std::optional<Error>>();
  std::function<Result<Accepted>(Txn&)> operation = [this, input = std::move(input), peer, arrived,
                                                     found](Txn& txn) -> Result<Accepted> {
    if (went_back_) return fail(*went_back_);
    // First of all: metadata that went back in time may not know the server yet, and "forgotten" is final
    // for it.
    if (auto safe = guard_.check(input.server, input.journal, parts_.executor.synced_position()); !safe) {
      went_back_ = *found = safe.error();
      return fail(safe.error());
    }
    TRYV(register_server(state_, txn, input, arrived));
    guard_.registered(txn, input.server);
    links_->bind(input.server, peer, input.address);
    return Accepted{txn.era(), after_step(true)};
  };
  auto accepted = co_await parts_.executor.run<Accepted>(std::move(operation), Durability::kSynced);
  if (*found) co_await stop_for_good(**found);
  if (!accepted) co_return fail(accepted.error());
  // When it hears that it is registered, no group counts on what its earlier process held.
  auto settled = co_await accepted->step->wait(deadline);
  if (!settled) co_return fail(settled.error());
  co_return Registered{accepted->era, default_pool().min_replicas};
}

rpc::Task<Result<ClusterCore::Beat>> ClusterCore::heartbeat(HeartbeatInput input,
                                                            std::shared_ptr<rpc::Peer> peer,
                                                            TimePoint arrived, Deadline deadline) {
  struct Accepted {
    Beat beat;
    std::shared_ptr<rpc::Event> step;
  };
  std::function<Result<Accepted>(Txn&)> operation = [this, input = std::move(input), peer,
                                                     arrived](Txn& txn) -> Result<Accepted> {
    if (went_back_) return fail(*went_back_);
    TRY(const HeartbeatEffect effect, apply_heartbeat(state_, input, purges_.visible(), arrived));
    const ClusterServer& server = state_.servers.at(input.server);
    links_->bind(input.server, peer, server.record.address);
    rate_.add(effect.bytes_copied, arrived);
    Accepted accepted;
    accepted.beat.fences = fences_.since(input.fences, kFencesPerHeartbeat);
    TRY(accepted.beat.purges, purges_.since(txn, input.purges, kPurgesPerHeartbeat));
    for (const auto& [id, target] : state_.targets)
      if (target.record.server == input.server && target.record.retired) accepted.beat.retired.push_back(id);
    accepted.beat.drops = order_drops(state_, txn, input.server, input.left_over, kDropsPerHeartbeat);
    check_waiters();
    accepted.step = after_step(effect.reconfigure);
    return accepted;
  };
  auto accepted = co_await parts_.executor.run<Accepted>(std::move(operation));
  if (!accepted) co_return fail(accepted.error());
  if (accepted->step) {
    auto settled = co_await accepted->step->wait(deadline);
    if (!settled) co_return fail(settled.error());
  }
  accepted->beat.table = table();
  if (!accepted->beat.drops.empty()) {
    // Nothing that the table does not show yet, or no more.
    std::erase_if(accepted->beat.drops, [&](const DropOrder& order) {
      const RoutingGroup* group = accepted->beat.table->find(order.group);
      return group == nullptr || group->epoch != order.epoch || group->barrier;
    });
    auto synced = co_await parts_.executor.sync();
    if (!synced) co_return fail(synced.error());
  }
  accepted->beat.journal = parts_.executor.synced_position();
  co_return std::move(accepted->beat);
}

rpc::Task<> ClusterCore::stop_for_good(Error found) {
  log_error("metadata_went_back", "note={}", log_quote(found.message()));
  std::function<Result<bool>(Txn&)> operation = [text = found.message()](Txn& txn) -> Result<bool> {
    txn.put(went_back_key(), text);
    return true;
  };
  auto stored = co_await parts_.executor.run<bool>(std::move(operation), Durability::kSynced);
  if (!stored)  // the bounds are stored: the next start finds out again
    log_error("metadata_went_back_not_stored", "error={}", log_quote(stored.error().to_string()));
  if (parts_.fatal) parts_.fatal(found);
}

// --- operators
// --------------------------------------------------------------------------------------------------------

rpc::Task<Result<>> ClusterCore::admin(AdminCommand command, ServerId server, Loss loss, Deadline deadline) {
  using Step = std::shared_ptr<rpc::Event>;
  std::function<Result<Step>(Txn&)> operation = [this, command, server, loss](Txn& txn) -> Result<Step> {
    switch (command) {
      case AdminCommand::kDrain:
        TRYV(set_draining(state_, txn, server, DrainOrder::kDrain));
        break;
      case AdminCommand::kUndrain:
        TRYV(set_draining(state_, txn, server, DrainOrder::kUndrain));
        break;
      case AdminCommand::kForget:
        TRYV(forget_server(state_, txn, server, loss));
        if (loss == Loss::kAccept) TRYV(accept_losses(state_, txn, parts_.config, parts_.rng));
        if (!state_.servers.contains(server)) links_->forget(server);
        break;
    }
    return after_step(true);
  };
  auto accepted = co_await parts_.executor.run<Step>(std::move(operation), Durability::kSynced);
  if (!accepted) co_return fail(accepted.error());
  co_return co_await (*accepted)->wait(deadline);
}

rpc::Task<Result<std::string>> ClusterCore::status(StatusPage page) {
  auto input = std::make_shared<StatusInput>();
  std::function<Result<bool>(Txn&)> operation = [this, input](Txn&) -> Result<bool> {
    input->state = state_;
    input->now = parts_.clock.now();
    input->bytes_per_second = rate_.bytes_per_second(input->now);
    for (const auto& [id, server] : state_.servers)
      if (server.record.registered && server.purges < purges_.last()) ++input->purges_behind;
    return true;
  };
  auto copied = co_await parts_.executor.run<bool>(std::move(operation));
  if (!copied) co_return fail(copied.error());
  const auto table = this->table();
  input->cluster = parts_.cluster;
  input->routing_version = table->version;
  input->waiting_servers = table->waiting_servers;
  if (parts_.counts) input->counts = parts_.counts();
  switch (page) {
    case StatusPage::kServers:
      co_return servers_json(*input);
    case StatusPage::kGroups:
      co_return groups_json(*input);
    case StatusPage::kStatus:
      break;
  }
  co_return status_json(*input);
}

// --- the namespace side
// -----------------------------------------------------------------------------------------------

void ClusterCore::queue_purge(Txn& txn, const PurgeRecord& order) {
  purges_.append(txn, order, [] {});  // shown by the next step, when it is synced
}

std::uint64_t ClusterCore::queue_fence(Txn& txn, SessionId session) {
  return fences_.append(txn, session, [this] { links_->poke_all(shown_version()); });
}

void ClusterCore::set_sessions_ended_below(Txn& txn, SessionId lowest_living) {
  fences_.set_ended_below(txn, lowest_living);
}

// A server confirms with a heartbeat. One that is dead counts when every group that can do without it has
// left it behind in an epoch that is published and under no barrier: what it accepted before then can reach
// nobody. Where it is the only member, nothing serves until it comes back, and it learns of the fence before
// it serves again.
bool ClusterCore::confirmed(std::uint64_t sequence) const {
  bool any_dead = false;
  for (const auto& [id, server] : state_.servers) {
    if (!server.record.registered) continue;
    if (server.liveness == Liveness::kDead) {
      if (!server.death_published) return false;
      any_dead = true;
    } else if (!server.registered || server.fences < sequence) {
      return false;
    }
  }
  if (!any_dead) return true;
  return std::ranges::none_of(state_.groups,
                              [](const auto& entry) { return !entry.second.record.removed.empty(); });
}

rpc::Task<Result<>> ClusterCore::fence_confirmed(std::uint64_t sequence, Deadline deadline) {
  auto event = std::make_shared<rpc::Event>(parts_.runtime);
  std::function<Result<bool>(Txn&)> operation = [this, sequence, event](Txn&) -> Result<bool> {
    if (confirmed(sequence)) return true;
    waiters_.push_back({[this, sequence] { return confirmed(sequence); }, event});
    return false;
  };
  auto now = co_await parts_.executor.run<bool>(std::move(operation));
  if (!now) co_return fail(now.error());
  if (*now) co_return Result<>();
  co_return co_await event->wait(deadline);
}

bool ClusterCore::purged_to(std::uint64_t sequence) const {
  return std::ranges::all_of(state_.servers, [&](const auto& entry) {
    const ClusterServer& server = entry.second;
    return !server.record.registered || !server.up() || server.purges >= sequence;
  });
}

rpc::Task<Result<bool>> ClusterCore::purged(Deadline deadline) {
  auto event = std::make_shared<rpc::Event>(parts_.runtime);
  std::function<Result<bool>(Txn&)> operation = [this, event](Txn&) -> Result<bool> {
    const std::uint64_t last = purges_.last();
    if (purged_to(last)) return false;
    waiters_.push_back({[this, last] { return purged_to(last); }, event});
    wake_.set();  // orders are shown by the next step
    return true;
  };
  auto waits = co_await parts_.executor.run<bool>(std::move(operation));
  if (!waits) co_return fail(waits.error());
  if (!*waits) co_return false;
  auto done = co_await event->wait(deadline);
  if (!done) co_return fail(done.error());
  co_return true;
}

}  // namespace cairn::meta
