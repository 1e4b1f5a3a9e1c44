#include "meta/server.h"

#include <unistd.h>

#include <filesystem>

#include "meta/cluster_impl.h"
#include "meta/service.h"
#include "meta/single_writer.h"
#include "meta/store_format.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {
constexpr Duration kLookForSpace = std::chrono::seconds(1);
}

// In order of construction; destroyed in reverse.
struct MetaServer::State {
  MetaConfig config;
  Surroundings around;
  std::optional<DirectoryLock> lock;
  std::unique_ptr<KvStore> own_store;
  KvStore* store = nullptr;
  StoreIdentity identity;
  JournalPosition began;  // of the journal, before this run wrote to it
  std::unique_ptr<Journal> journal;
  SharedCounters counters;
  std::optional<SessionTable> sessions;
  ReplyTable replies;
  std::optional<rpc::Runtime> runtime;
  std::optional<rpc::TaskGroup> tasks;
  std::unique_ptr<SingleWriter> executor;
  std::unique_ptr<ClusterSide> cluster;
  std::optional<SessionKeeper> keeper;
  std::shared_ptr<LeaseArbiter> arbiter;
  std::optional<TrashKeeper> trash;
  std::unique_ptr<MetaService> service;
  rpc::Identity identity_on_wire;
  std::unique_ptr<rpc::Server> server;

  State(const MetaConfig& c, Surroundings s) : config(c), around(std::move(s)) {}
  Result<> open();
  Result<> serve();
  void close();
  bool has_space();
  TimePoint space_looked_for;  // executor
};

// [executor] Looking for space again costs a file operation: not at every request.
bool MetaServer::State::has_space() {
  if (!store->full()) return true;
  const TimePoint now = around.clock.now();
  if (now < space_looked_for + kLookForSpace) return false;
  space_looked_for = now;
  return store->leave_full();
}

Result<> MetaServer::State::open() {
  if (around.store != nullptr) {
    store = around.store;
  } else {
    TRY(auto taken, DirectoryLock::take(config.data_dir));
    lock.emplace(std::move(taken));
    const std::string directory = std::filesystem::path(config.data_dir) / "store";
    RocksKvConfig kv_config;
    kv_config.block_cache_bytes = config.block_cache_bytes;
    kv_config.write_buffer_bytes = config.write_buffer_bytes;
    kv_config.ballast_bytes = config.ballast_bytes;
    kv_config.salvage = config.salvage;
    TRY(own_store, open_rocks_kv(directory, kv_config));
    store = own_store.get();
  }
  StoreOptions options;
  options.init = config.init;
  options.salvage = config.salvage;
  if (!config.cluster_id.empty()) {
    TRY(const std::uint64_t cluster, parse_hex64(config.cluster_id));
    options.expected = ClusterId(cluster);
  }
  TRY(options.boot_id, around.boot_id());
  options.root_uid = ::getuid();
  options.root_gid = ::getgid();
  options.root_mode = config.root_mode;
  options.wall_ns = around.clock.wall_ns();
  auto opened = open_store(*store, options, around.rng);
  if (!opened) return fail(opened.error().with("data_dir " + log_quote(config.data_dir)));
  identity = *opened;
  TRY(const AppliedRecord last, last_applied(*store));
  began = last.position;
  TRY(journal, open_local_journal(*store, identity.era));
  return {};
}

Result<> MetaServer::State::serve() {
  runtime.emplace(around.clock, config.io_threads, "meta-io");
  tasks.emplace(*runtime);
  sessions.emplace(around.clock, config.lease);
  TRY(executor, SingleWriter::start(*store, *journal, around.clock, identity.era, around.fatal));
  cluster = make_cluster(ClusterParts{
      *runtime, around.transport, *executor, around.clock, around.rng, config.cluster, identity.cluster,
      [this] {
        return NamespaceCounts{counters.files, counters.objects,     sessions->alive(),
                               store->full(),  counters.trash_files, counters.trash_bytes};
      },
      began, around.fatal});
  auto cluster_started = rpc::block_on(*runtime, cluster->start());
  TRYV(std::move(cluster_started));

  keeper.emplace(SessionKeeper::Parts{
      *runtime, *tasks, *executor, *sessions, replies, *cluster, {config.lease, config.deleted_object_keep}});
  arbiter =
      LeaseArbiter::create({*runtime,
                            *tasks,
                            *executor,
                            *sessions,
                            *cluster,
                            {config.leases_per_session, config.recall_max, config.trash_retention},
                            [this](SessionId id, std::string why) { keeper->end(id, std::move(why)); }});
  keeper->set_arbiter(arbiter);
  auto sessions_started = rpc::block_on(*runtime, keeper->start(identity.end_sessions));
  TRYV(std::move(sessions_started));
  std::function<Result<>(Txn&)> publish = [this](Txn& txn) -> Result<> {
    TRY(const Counters stored, load_counters(txn));
    counters.publish(stored);
    return {};
  };
  auto published = rpc::block_on(*runtime, executor->run<void>(std::move(publish)));
  TRYV(std::move(published));
  tasks->spawn(runtime->executor(), keeper->run());
  trash.emplace(*runtime, *cluster, arbiter, [this](const Counters& stored) { counters.publish(stored); });
  tasks->spawn(runtime->executor(), trash->run());

  service = std::make_unique<MetaService>(MetaService::Parts{
      *runtime, *executor, *sessions, *keeper, *arbiter, replies, *cluster, *cluster, counters,
      identity.cluster, config.lease, identity.feature_level, [this] { return has_space(); }, &*trash});
  identity_on_wire.role = rpc::Role::kMeta;
  identity_on_wire.cluster = [id = identity.cluster] { return id; };
  identity_on_wire.id = [] { return std::uint64_t{0}; };
  identity_on_wire.program = "cairn-meta 0.1.0 pid " + std::to_string(::getpid());
  TRY(server, rpc::Server::start(*runtime, around.transport, config.listen, *service, identity_on_wire));
  return {};
}

void MetaServer::State::close() {
  if (server) server->stop(Deadline::after(around.clock, std::chrono::seconds(3)));
  if (cluster) cluster->stop();
  if (tasks) tasks->close_blocking();
  if (executor) executor->stop();
  if (runtime) runtime->stop();
}

Result<std::unique_ptr<MetaServer>> MetaServer::start(const MetaConfig& config, Surroundings surroundings) {
  auto state = std::make_unique<State>(config, std::move(surroundings));
  auto opened = state->open();
  auto serving = opened ? state->serve() : std::move(opened);
  if (!serving) {
    state->close();
    return fail(std::move(serving.error()));
  }
  log_info("meta_started", "address={} cluster={} era={} formatted={} sessions_ended={}",
           state->server->address(), to_string(state->identity.cluster), state->identity.era.value(),
           state->identity.formatted, state->identity.end_sessions);
  return std::unique_ptr<MetaServer>(new MetaServer(std::move(state)));
}

MetaServer::MetaServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
MetaServer::~MetaServer() {
  if (state_) state_->close();
}

Result<> MetaServer::stop() {
  state_->close();
  auto marked = mark_clean(*state_->store);
  if (marked) log_info("meta_stopped");
  state_.reset();
  return marked;
}

std::string MetaServer::address() const {
  return state_->server->address();
}
ClusterId MetaServer::cluster() const {
  return state_->identity.cluster;
}

}  // namespace cairn::meta
