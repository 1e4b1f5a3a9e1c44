// The cluster side over RPC: fake chunkservers join, register, send heartbeats, are killed, cut off and
// restarted. Time is a manual clock that moves only while a test waits, so a test can say how much of it
// something took.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "meta/cluster_impl.h"
#include "meta/cluster_status.h"
#include "meta/journal_guard.h"
#include "meta/single_writer.h"
#include "store/base/log.h"
#include "store/rpc/connection.h"

namespace cairn::meta {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
namespace method = rpc::method;

constexpr ClusterId kCluster{0x77};

class AtomicClock final : public Clock {
 public:
  TimePoint now() const override { return {ns_.load()}; }
  std::int64_t wall_ns() const override { return ns_.load(); }
  void advance(Duration by) { ns_ += by.count(); }

 private:
  std::atomic<std::int64_t> ns_{1'000'000'000'000};
};

// The metadata server: what server.cc does, without the namespace.
class Meta final : public rpc::Service {
 public:
  Meta(rpc::Runtime& runtime, rpc::Transport& transport, AtomicClock& clock,
       const MapKvStore::Content& content, const ClusterConfig& config, Era era)
      : kv_(content) {
    const JournalPosition began = last_applied(kv_)->position;
    journal_ = open_local_journal(kv_, era).value();
    writer_ = SingleWriter::start(kv_, *journal_, clock, era, [](const Error&) {}).value();
    ClusterParts parts{runtime,  transport,
                       *writer_, clock,
                       rng_,     config,
                       kCluster, [] { return NamespaceCounts{7, 3, 1}; },
                       began,    [this](const Error& error) { fatal = error; }};
    cluster = make_cluster(std::move(parts));
    identity_.role = rpc::Role::kMeta;
    identity_.cluster = [] { return kCluster; };
    identity_.id = [] { return std::uint64_t{0}; };
    identity_.program = "meta";
    auto started = rpc::block_on(runtime, cluster->start());
    EXPECT_TRUE(started.has_value()) << started.error().to_string();
    server_ = rpc::Server::start(runtime, transport, "meta", *this, identity_).value();
  }
  ~Meta() override { stop(); }
  void stop() {
    if (server_) server_->stop(Deadline{});
    server_.reset();
    cluster->stop();
    writer_->stop();
  }
  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override {
    return cluster->handle(std::move(request));
  }
  void connected(const std::shared_ptr<rpc::Peer>& peer) override { cluster->connected(peer); }

  SingleWriter& executor() { return *writer_; }
  MapKvStore& kv() { return kv_; }
  std::unique_ptr<ClusterSide> cluster;
  std::optional<Error> fatal;  // set before the request that found it is answered

 private:
  MapKvStore kv_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<SingleWriter> writer_;
  SeededRng rng_{7};
  rpc::Identity identity_;
  std::unique_ptr<rpc::Server> server_;
};

struct SeenGroup {
  std::uint64_t epoch = 0;
  std::vector<std::pair<std::uint64_t, bool>> members;  // target, in sync
  bool barrier = false;
  bool reconcile = false;
};
struct SeenRouting {
  std::uint64_t version = 0;
  bool full = false;
  std::uint32_t waiting = 0;
  std::map<std::uint32_t, SeenGroup> groups;
};
SeenRouting read_routing(schema::Routing::Reader routing) {
  SeenRouting seen{routing.getVersion(), routing.getFull(), routing.getWaitingServers(), {}};
  for (auto group : routing.getGroups()) {
    SeenGroup& to = seen.groups[group.getId().getSlot()];
    to.epoch = group.getEpoch();
    to.barrier = group.getBarrier();
    to.reconcile = group.getReconcile();
    for (auto member : group.getMembers()) to.members.emplace_back(member.getTarget(), member.getInSync());
  }
  return seen;
}

struct Progress {
  std::uint32_t slot;
  std::uint64_t epoch;
  schema::HeartbeatRequest::Progress::State state;
};

// One chunkserver process: a listener, and a channel to the metadata server that takes pokes.
class FakeServer final : public rpc::Service {
 public:
  FakeServer(rpc::Runtime& runtime, rpc::Transport& transport, AtomicClock& clock, std::string address,
             std::uint64_t id, std::uint64_t boot, std::uint64_t target, ClusterId cluster = kCluster)
      : address(std::move(address)), id(id), boot(boot), target(target), runtime_(runtime), clock_(clock) {
    identity_.role = rpc::Role::kChunkserver;
    identity_.cluster = [cluster] { return cluster; };
    identity_.id = [this] { return this->id; };
    identity_.program = "fake";
    listener_ = rpc::Server::start(runtime, transport, this->address, *this, identity_).value();
    channel_ = rpc::Channel::create(runtime, transport, "meta", identity_, this);
  }
  ~FakeServer() override { kill(); }
  void kill() {
    if (!listener_) return;
    listener_->stop(Deadline{});
    listener_.reset();
    channel_->close();
  }
  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override {
    if (request.method == method::Poke::kNumber) ++pokes;
    rpc::OutMessage reply;
    reply.body<schema::Empty>();
    co_return std::move(reply);
  }

  template <class M>
  Result<rpc::Reply<typename M::ReplyBody>> call(rpc::OutMessage message) {
    auto answer = std::async(std::launch::async, [&] {
      return rpc::block_on(runtime_, channel_->call<M>(std::move(message), Deadline::after(clock_, 60s)));
    });
    // Reconnecting waits for a backoff, on the manual clock.
    while (answer.wait_for(50ms) != std::future_status::ready) clock_.advance(10ms);
    return answer.get();
  }
  Result<std::uint64_t> join() {
    rpc::OutMessage message;
    message.body<schema::JoinRequest>().setAddress(address);
    TRY(auto reply, call<method::Join>(std::move(message)));
    EXPECT_EQ(reply->getCluster(), kCluster.value());
    id = reply->getServer();
    return id;
  }
  Result<> register_process(JournalPosition journal = {}) {
    rpc::OutMessage message;
    auto body = message.body<schema::RegisterRequest>();
    body.setServer(id);
    body.setAddress(address);
    body.setBoot(boot);
    body.initJournal().setEra(journal.era.value());
    body.getJournal().setIndex(journal.index);
    fill(body.initTargets(1)[0]);
    auto reply = call<method::Register>(std::move(message));
    if (!reply) return fail(reply.error());
    known = 0;
    return {};
  }
  Result<> heartbeat(std::vector<Progress> progress = {}) {
    rpc::OutMessage message;
    auto body = message.body<schema::HeartbeatRequest>();
    body.setServer(id);
    body.setBoot(boot);
    body.setRoutingVersion(known);
    body.setFences(fences);
    body.setPurges(purges);
    fill(body.initTargets(1)[0]);
    auto leftovers = body.initLeftovers(static_cast<unsigned>(left_over.size()));
    for (unsigned i = 0; i < leftovers.size(); ++i) {
      leftovers[i].initGroup().setPool(1);
      leftovers[i].getGroup().setSlot(left_over[i]);
      leftovers[i].setTarget(target);
    }
    auto list = body.initProgress(static_cast<unsigned>(progress.size()));
    for (unsigned i = 0; i < progress.size(); ++i) {
      list[i].initGroup().setPool(1);
      list[i].getGroup().setSlot(progress[i].slot);
      list[i].setTarget(target);
      list[i].setEpoch(progress[i].epoch);
      list[i].setState(progress[i].state);
      list[i].setBytesLeft(1000);
      list[i].setChunksLeft(2);
    }
    auto reply = call<method::Heartbeat>(std::move(message));
    if (!reply) return fail(reply.error());
    SeenRouting seen = read_routing((*reply)->getRouting());
    if (seen.full) groups.clear();
    for (auto& [slot, group] : seen.groups) groups[slot] = group;
    known = seen.version;
    reached = (*reply)->getFences();
    ended.clear();
    for (auto session : (*reply)->getEnded()) ended.push_back(session);
    ended_below = (*reply)->getEndedBelow();
    orders.clear();
    for (auto purge : (*reply)->getPurges()) orders.emplace_back(purge.getSequence(), purge.getData());
    drops.clear();
    for (auto drop : (*reply)->getDrops()) {
      EXPECT_EQ(drop.getTarget(), target);
      drops.emplace_back(drop.getGroup().getSlot(), drop.getEpoch());
    }
    journal = {Era((*reply)->getJournal().getEra()), (*reply)->getJournal().getTerm(),
               (*reply)->getJournal().getIndex()};
    return {};
  }

  std::string address;
  std::uint64_t id;
  std::uint64_t boot;
  std::uint64_t target;
  std::atomic<int> pokes{0};
  std::map<std::uint32_t, SeenGroup> groups;
  std::uint64_t known = 0;
  std::uint64_t fences = 0;
  std::uint64_t purges = 0;
  std::uint64_t reached = 0;
  std::uint64_t ended_below = 0;
  std::vector<std::uint64_t> ended;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> orders;
  std::vector<std::uint32_t> left_over;                        // slots to report
  std::vector<std::pair<std::uint32_t, std::uint64_t>> drops;  // slot, epoch
  JournalPosition journal;
  bool silent = false;

 private:
  void fill(schema::TargetReport::Builder report) const {
    report.setId(target);
    report.setCapacity(1ull << 40);
    report.setUsed(1ull << 30);
    report.setAvailable(1ull << 39);
    report.setChunks(256);
  }
  rpc::Runtime& runtime_;
  AtomicClock& clock_;
  rpc::Identity identity_;
  std::unique_ptr<rpc::Server> listener_;
  std::shared_ptr<rpc::Channel> channel_;
};

class ClusterServiceTest : public ::testing::Test {
 protected:
  ClusterServiceTest() {
    log_set_level(LogLevel::kOff);
    config.slots = 8;
    config.expected_servers = 3;
    config.rebalance = false;
    meta = std::make_unique<Meta>(runtime, transport, clock, MapKvStore::Content{}, config, Era(1));
  }
  ~ClusterServiceTest() override {
    servers.clear();
    meta.reset();
  }

  FakeServer& start(std::size_t n, std::uint64_t boot = 1, ClusterId cluster = kCluster) {
    if (servers.size() <= n) servers.resize(n + 1);
    const std::uint64_t id = servers[n] ? servers[n]->id : 0;
    const std::uint64_t target = servers[n] ? servers[n]->target : 100 + n;
    servers[n].reset();
    servers[n] = std::make_unique<FakeServer>(runtime, transport, clock, "cs" + std::to_string(n), id, boot,
                                              target, cluster);
    return *servers[n];
  }
  void start_all() {
    for (std::size_t n = 0; n < 3; ++n) {
      FakeServer& server = start(n);
      ASSERT_TRUE(server.join().has_value());
      ASSERT_TRUE(server.register_process().has_value());
    }
    beat_all();
    ASSERT_EQ(servers[0]->groups.size(), 8u);
  }
  void restart_meta() { restart_meta(meta->kv().after_kill()); }
  void restart_meta(const MapKvStore::Content& content, Era era = Era(1)) {
    meta.reset();
    meta = std::make_unique<Meta>(runtime, transport, clock, content, config, era);
  }
  // So many synced entries of the journal.
  void write_entries(int count) {
    for (int n = 0; n < count; ++n) {
      std::function<Result<bool>(Txn&)> write = [](Txn& txn) -> Result<bool> {
        txn.put("entry", "");
        return true;
      };
      auto run = meta->executor().run<bool>(std::move(write), Durability::kSynced);
      ASSERT_TRUE(rpc::block_on(runtime, std::move(run)).has_value());
    }
  }
  void beat_all() {
    for (auto& server : servers)
      if (server && !server->silent) (void)server->heartbeat();
  }
  // Lets time pass, with heartbeats of all who are not silent, until it holds; false when `limit` has passed.
  bool wait_for(const std::function<bool()>& holds, Duration limit) {
    const TimePoint end = clock.now() + limit;
    for (;;) {
      if (holds()) return true;
      if (clock.now() >= end) return false;
      clock.advance(20ms);
      beat_all();
      std::this_thread::sleep_for(
          1ms);  // lets the runtime's timers see the clock; nothing depends on how long
    }
  }
  void silence(std::size_t n) { servers[n]->silent = true; }
  // A slot whose in-sync set has the target of server n, and one that has not.
  std::uint32_t slot_with(std::size_t n) { return slot_where(n, true); }
  std::uint32_t slot_where(std::size_t n, bool has) {
    beat_all();
    const auto routing = this->routing();
    for (const auto& [slot, group] : routing.groups) {
      bool found = false;
      for (const auto& [target, in_sync] : group.members) found = found || target == 100 + n;
      if (found == has) return slot;
    }
    ADD_FAILURE();
    return 0;
  }
  SeenRouting routing(std::uint64_t known = 0) {
    rpc::OutMessage message;
    message.body<schema::RoutingRequest>().setKnown(known);
    auto reply = client().call<method::GetRouting>(std::move(message));
    EXPECT_TRUE(reply.has_value());
    return reply ? read_routing(**reply) : SeenRouting{};
  }
  json status(schema::StatusRequest::What what = schema::StatusRequest::What::STATUS) {
    rpc::OutMessage message;
    message.body<schema::StatusRequest>().setWhat(what);
    auto reply = client().call<method::Status>(std::move(message));
    EXPECT_TRUE(reply.has_value());
    return reply ? json::parse((*reply)->getJson().cStr()) : json();
  }
  Result<> admin(schema::AdminRequest::Command command, std::uint64_t server, bool accept_loss = false) {
    rpc::OutMessage message;
    auto body = message.body<schema::AdminRequest>();
    body.setCommand(command);
    body.setServer(server);
    body.setAcceptLoss(accept_loss);
    auto reply = client().call<method::Admin>(std::move(message));
    if (!reply) return fail(reply.error());
    return {};
  }
  std::string state_of(std::size_t n) {
    const json all = status();
    for (const auto& server : all["servers"])
      if (server["address"] == "cs" + std::to_string(n)) return server["state"];
    return "none";
  }
  // Joiners report that they caught up until everything is whole.
  bool repair(Duration limit) {
    return wait_for(
        [&] {
          const auto routing = this->routing();
          for (auto& server : servers) {
            if (!server || server->silent) continue;
            std::vector<Progress> done;
            for (const auto& [slot, group] : routing.groups)
              for (const auto& [target, in_sync] : group.members)
                if (target == server->target && !in_sync)
                  done.push_back({slot, group.epoch, schema::HeartbeatRequest::Progress::State::CAUGHT_UP});
            if (!done.empty()) (void)server->heartbeat(done);
          }
          return status()["health"] == "ok";
        },
        limit);
  }
  template <class T>
  Result<T> run(std::function<Result<T>(Txn&)> operation) {
    return rpc::block_on(runtime, meta->executor().run<T>(std::move(operation), Durability::kSynced));
  }

  FakeServer& client() {
    if (!client_) client_ = std::make_unique<FakeServer>(runtime, transport, clock, "client", 0, 0, 0);
    return *client_;
  }

  AtomicClock clock;
  rpc::Runtime runtime{clock, 2, "test"};
  rpc::MemoryTransport transport;
  ClusterConfig config;
  std::unique_ptr<Meta> meta;
  std::vector<std::unique_ptr<FakeServer>> servers;
  std::unique_ptr<FakeServer> client_;
};

TEST_F(ClusterServiceTest, LaysOutWhenTheExpectedServersAreThere) {
  EXPECT_EQ(routing().waiting, 3u);
  EXPECT_EQ(status()["health"], "degraded");
  ASSERT_TRUE(start(0).join().has_value());
  ASSERT_TRUE(servers[0]->register_process().has_value());
  EXPECT_EQ(routing().waiting, 2u);
  EXPECT_TRUE(routing().groups.empty());
  start_all();
  const auto all = routing();
  EXPECT_EQ(all.waiting, 0u);
  EXPECT_EQ(all.groups.size(), 8u);
  for (const auto& [slot, group] : all.groups) {
    EXPECT_EQ(group.members.size(), 2u);
    EXPECT_FALSE(group.barrier);
  }
  EXPECT_TRUE(routing(all.version).groups.empty());
  EXPECT_FALSE(routing(all.version).full);
  EXPECT_TRUE(routing(all.version + 1000).full);
  const json now = status();
  EXPECT_EQ(now["health"], "ok");
  EXPECT_EQ(now["groups"]["whole"], 8);
  EXPECT_EQ(now["files"], 7);
  EXPECT_EQ(now["objects"], 3);
  EXPECT_EQ(now["repair"]["eta_seconds"], 0);
  EXPECT_EQ(now["servers"].size(), 3u);
  EXPECT_EQ(status(schema::StatusRequest::What::GROUPS)["groups"].size(), 8u);
  EXPECT_EQ(status(schema::StatusRequest::What::SERVERS)["servers"][0]["targets"].size(), 1u);
  EXPECT_EQ(meta->cluster->default_pool().min_replicas, 2);
  EXPECT_GT(meta->cluster->space().available_bytes, 0u);
  EXPECT_EQ(meta->cluster->routing_version(), all.version);
}

TEST_F(ClusterServiceTest, LaysOutWithFewerServersAfterTheWait) {
  ASSERT_TRUE(start(0).join().has_value());
  ASSERT_TRUE(servers[0]->register_process().has_value());
  EXPECT_FALSE(wait_for([&] { return !routing().groups.empty(); }, 20s));
  EXPECT_TRUE(wait_for([&] { return !routing().groups.empty(); }, 12s));
  EXPECT_EQ(meta->cluster->default_pool().min_replicas, 1);
  EXPECT_EQ(status()["health"], "degraded");
  // A second server: copied, and only then the minimum grows.
  ASSERT_TRUE(start(1).join().has_value());
  ASSERT_TRUE(servers[1]->register_process().has_value());
  EXPECT_EQ(meta->cluster->default_pool().min_replicas, 1);
  EXPECT_TRUE(repair(10s));
  EXPECT_EQ(meta->cluster->default_pool().min_replicas, 2);
}

TEST_F(ClusterServiceTest, JoinIsIdempotentByAddress) {
  auto first = start(0).join();
  auto again = servers[0]->join();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(*again, *first);
  ASSERT_TRUE(servers[0]->register_process().has_value());
  auto thief = std::make_unique<FakeServer>(runtime, transport, clock, "other", 0, 1, 5);
  thief->address = "cs0";
  EXPECT_EQ(thief->join().error().code(), Code::kExists);
}

// The group's epoch changes without waiting for the lease, with a replacement at once, and without a barrier.
TEST_F(ClusterServiceTest, KilledServerIsReplacedWithinASecond) {
  start_all();
  const std::uint32_t slot = slot_with(1);
  const std::uint64_t epoch = routing().groups[slot].epoch;
  const int pokes = servers[0]->pokes;
  silence(1);
  servers[1]->kill();
  ASSERT_TRUE(wait_for([&] { return routing().groups[slot].epoch > epoch; }, 1s));
  EXPECT_EQ(state_of(1), "dead");
  const SeenGroup group = routing().groups[slot];
  EXPECT_FALSE(group.barrier);
  ASSERT_EQ(group.members.size(), 2u);
  EXPECT_TRUE(group.members[0].second);
  EXPECT_FALSE(group.members[1].second);
  EXPECT_EQ(status()["health"], "at_risk");
  EXPECT_GT(status()["repair"]["bytes_left"], 0);
  EXPECT_TRUE(wait_for([&] { return servers[0]->pokes > pokes; }, 1s));
  EXPECT_TRUE(repair(5s));
  EXPECT_EQ(status()["groups"]["whole"], 8);
}

TEST_F(ClusterServiceTest, SilentServerIsDeadWhenItsLeaseIsOver) {
  start_all();
  silence(1);
  EXPECT_TRUE(wait_for([&] { return state_of(1) == "suspect"; }, 4s));
  EXPECT_FALSE(wait_for([&] { return state_of(1) == "dead"; }, 5s));
  EXPECT_TRUE(wait_for([&] { return state_of(1) == "dead"; }, 3s));
  // It was only cut off: back, it joins again.
  servers[1]->silent = false;
  EXPECT_TRUE(wait_for([&] { return state_of(1) == "up"; }, 1s));
  EXPECT_TRUE(repair(5s));
}

// A connection that breaks while the address still accepts proves nothing.
TEST_F(ClusterServiceTest, BrokenConnectionAloneDoesNotKill) {
  start_all();
  silence(1);
  transport.cut("meta");
  transport.heal("meta");
  EXPECT_FALSE(wait_for([&] { return state_of(1) == "dead"; }, 5s));
}

TEST_F(ClusterServiceTest, RestartedServerCatchesUp) {
  start_all();
  const std::uint32_t slot = slot_with(1);
  const std::uint64_t epoch = routing().groups[slot].epoch;
  FakeServer& again = start(1, 2);
  ASSERT_TRUE(again.register_process().has_value());
  // When Register is answered, no group counts on it any more.
  const SeenGroup group = routing().groups[slot];
  EXPECT_GT(group.epoch, epoch);
  EXPECT_EQ(group.members.back().first, 101u);
  EXPECT_FALSE(group.members.back().second);
  // A report about the epoch before does not count.
  (void)again.heartbeat({{slot, epoch, schema::HeartbeatRequest::Progress::State::CAUGHT_UP}});
  EXPECT_FALSE(routing().groups[slot].members.back().second);
  (void)again.heartbeat({{slot, group.epoch, schema::HeartbeatRequest::Progress::State::CAUGHT_UP}});
  EXPECT_TRUE(routing().groups[slot].members.back().second);
  EXPECT_GT(routing().groups[slot].epoch, group.epoch);
}

TEST_F(ClusterServiceTest, HeartbeatOfAnEarlierProcessIsRefused) {
  start_all();
  FakeServer& again = start(1, 2);
  ASSERT_TRUE(again.register_process().has_value());
  again.boot = 1;
  EXPECT_EQ(again.heartbeat().error().code(), Code::kNotServing);
}

TEST_F(ClusterServiceTest, AllRestartedReconciles) {
  start_all();
  const std::uint32_t slot = slot_where(2, false);  // on servers 0 and 1
  for (std::size_t n : {0u, 1u}) {
    silence(n);
    servers[n]->kill();
  }
  // The one found dead last stays in the set, or both do: nobody else takes their place.
  ASSERT_TRUE(wait_for([&] { return state_of(0) == "dead" && state_of(1) == "dead"; }, 2s));
  for (std::size_t n : {0u, 1u}) ASSERT_TRUE(start(n, 2).register_process().has_value());
  const SeenGroup group = routing().groups[slot];
  ASSERT_TRUE(group.reconcile);
  const std::uint64_t head = group.members.front().first;
  ASSERT_TRUE(wait_for([&] { return !routing().groups[slot].barrier; }, 1s));
  (void)servers[head - 100]->heartbeat(
      {{slot, routing().groups[slot].epoch, schema::HeartbeatRequest::Progress::State::RECONCILED}});
  const SeenGroup after = routing().groups[slot];
  EXPECT_FALSE(after.reconcile);
  EXPECT_EQ(after.members.front(), std::make_pair(head, true));
  EXPECT_EQ(after.members.size(), 2u);
  EXPECT_GT(after.epoch, group.epoch);
}

// The metadata server restarts together with a chunkserver: it does not take the other one for dead, and when
// that one comes back without a restart of its own, nothing needs to reconcile.
TEST_F(ClusterServiceTest, MetaRestartKeepsGroupsAndWaitsForServers) {
  start_all();
  const std::uint32_t slot = slot_where(2, false);
  const auto before = routing();
  EXPECT_TRUE(meta->cluster->space().known);
  restart_meta();
  EXPECT_FALSE(meta->cluster->space().known);
  const auto after = routing(before.version);
  EXPECT_TRUE(after.full);
  EXPECT_GT(after.version, before.version);
  EXPECT_EQ(after.groups.at(slot).epoch, before.groups.at(slot).epoch);
  ASSERT_TRUE(start(0, 2).register_process().has_value());
  EXPECT_TRUE(routing().groups[slot].reconcile);
  EXPECT_TRUE(routing().groups[slot].barrier);
  EXPECT_EQ(servers[1]->heartbeat().error().code(), Code::kNotServing);
  ASSERT_TRUE(servers[1]->register_process().has_value());
  const SeenGroup group = routing().groups[slot];
  EXPECT_FALSE(group.reconcile);
  EXPECT_EQ(group.members.front(), std::make_pair(std::uint64_t{101}, true));
  EXPECT_EQ(group.members.back(), std::make_pair(std::uint64_t{100}, false));
  EXPECT_NE(state_of(2), "dead");  // not heard of for less than a lease
  EXPECT_FALSE(meta->cluster->space().known);
  EXPECT_TRUE(wait_for([&] { return state_of(2) == "dead"; }, 11s));
  EXPECT_TRUE(meta->cluster->space().known);
}

TEST_F(ClusterServiceTest, MetadataThatWentBackIsRefusedHoweverMuchIsWrittenSince) {
  start_all();
  const auto old_copy = meta->kv().after_kill();
  write_entries(20);
  beat_all();
  const JournalPosition told = servers[0]->journal;
  ASSERT_EQ(told, meta->executor().synced_position());
  // As it should be: the server's process starts again, then the metadata server.
  ASSERT_TRUE(start(0, 2).register_process(told).has_value());
  restart_meta();
  ASSERT_TRUE(start(0, 3).register_process(told).has_value());
  EXPECT_FALSE(meta->fatal.has_value());

  // With the old copy the others, who remember little, register; new entries pass what was lost; it is
  // started once more, and in a new era (an unclean start of the machine).
  restart_meta(old_copy);
  ASSERT_TRUE(start(1, 2).register_process().has_value());
  write_entries(100);
  restart_meta(meta->kv().after_kill(), Era(2));
  ASSERT_TRUE(start(1, 3).register_process().has_value());
  ASSERT_TRUE(told < meta->executor().synced_position());
  auto refused = start(0, 4).register_process(told);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Code::kNeedsOperator);
  ASSERT_TRUE(meta->fatal.has_value());
  EXPECT_EQ(meta->fatal->code(), Code::kNeedsOperator);
  // From here on it serves nobody, and is not started again.
  EXPECT_EQ(servers[1]->heartbeat().error().code(), Code::kNeedsOperator);
  EXPECT_EQ(start(2, 2).register_process().error().code(), Code::kNeedsOperator);
  EXPECT_TRUE(meta->kv().get(went_back_key()).value().has_value());
}

TEST_F(ClusterServiceTest, MetadataBehindAServerItDoesNotKnowIsRefused) {
  start_all();
  JournalPosition later = meta->executor().synced_position();
  later.index += 1000;
  // One that joined after the point to which the metadata went back is not told that it was forgotten: it
  // would give up for good.
  FakeServer joined_later(runtime, transport, clock, "later", 12345, 1, 9);
  EXPECT_EQ(joined_later.register_process(later).error().code(), Code::kNeedsOperator);
  EXPECT_TRUE(meta->fatal.has_value());
}

TEST_F(ClusterServiceTest, AServerForgottenInThisRunProvesNothing) {
  start_all();
  write_entries(20);
  beat_all();
  silence(1);
  servers[1]->kill();
  ASSERT_TRUE(wait_for([&] { return state_of(1) == "dead"; }, 2s));
  ASSERT_TRUE(repair(5s));
  ASSERT_TRUE(admin(schema::AdminRequest::Command::FORGET, servers[1]->id));
  const JournalPosition told = servers[1]->journal;
  EXPECT_EQ(start(1, 2).register_process(told).error().code(), Code::kNotFound);
  EXPECT_FALSE(meta->fatal.has_value());
}

TEST_F(ClusterServiceTest, NoEstimateWhenNothingMoves) {
  CopyRate rate;
  EXPECT_EQ(rate.bytes_per_second(clock.now()), 0u);
  rate.add(100'000'000, clock.now());
  EXPECT_GT(rate.bytes_per_second(clock.now()), 0u);
  clock.advance(3s);
  rate.add(0, clock.now());  // a heartbeat without progress
  EXPECT_GT(rate.bytes_per_second(clock.now()), 0u);
  clock.advance(3s);
  EXPECT_EQ(rate.bytes_per_second(clock.now()), 0u);
}

// One that joined before joining asked for text.
TEST_F(ClusterServiceTest, StatusShowsAnAddressThatIsNoText) {
  StatusInput input;
  ClusterServer& server = input.state.servers[ServerId(1)];
  server.record.id = ServerId(1);
  server.record.address = "cs\xff";
  server.record.labels = {"rack=\xff"};
  server.record.registered = true;
  for (const std::string& page : {status_json(input), servers_json(input), groups_json(input)})
    EXPECT_TRUE(json::accept(page)) << page;
}

TEST_F(ClusterServiceTest, JoinTakesTextOnly) {
  for (const char* address : {"cs\xff", "cs\n1", "cs\x7f", "\xc0\xaf", "cs\xe2\x82"}) {
    FakeServer server(runtime, transport, clock, "door", 0, 1, 9);
    server.address = address;
    auto joined = server.join();
    ASSERT_FALSE(joined.has_value()) << address;
    EXPECT_EQ(joined.error().code(), Code::kInvalidArgument);
  }
  FakeServer server(runtime, transport, clock, "door", 0, 1, 9);
  server.address = "cs-\xc3\xa4-\xe2\x82\xac";
  EXPECT_TRUE(server.join().has_value());
}

TEST_F(ClusterServiceTest, HealthIsNotOkWhileADrainingServerHoldsGroups) {
  start_all();
  ASSERT_EQ(status()["health"], "ok");
  ASSERT_TRUE(admin(schema::AdminRequest::Command::DRAIN, servers[1]->id));
  EXPECT_EQ(status()["health"], "draining");
  EXPECT_TRUE(repair(10s));
  ASSERT_TRUE(wait_for([&] { return status()["health"] != "draining"; }, 10s));
  EXPECT_EQ(status()["health"], "ok");
  for (const auto& [slot, group] : routing().groups)
    for (const auto& [target, in_sync] : group.members) EXPECT_NE(target, 101u);
}

TEST_F(ClusterServiceTest, ForeignServersAreRefused) {
  start_all();
  FakeServer foreign(runtime, transport, clock, "foreign", 5, 1, 9, ClusterId(0x99));
  EXPECT_EQ(foreign.register_process().error().code(), Code::kWrongCluster);
  FakeServer unknown(runtime, transport, clock, "unknown", 12345, 1, 9);
  EXPECT_EQ(unknown.register_process().error().code(), Code::kNotFound);
  servers[2]->target = 100;  // a disk of server 0
  EXPECT_EQ(servers[2]->register_process().error().code(), Code::kNeedsOperator);
}

TEST_F(ClusterServiceTest, WhatIsLeftOverIsDroppedOnlyWhereTheGroupIsWholeWithoutIt) {
  start_all();
  std::uint32_t outside = 0;
  for (const auto& [slot, group] : routing().groups) {
    servers[0]->left_over.push_back(slot);
    outside += std::ranges::none_of(group.members, [&](const auto& m) { return m.first == 100; });
  }
  ASSERT_GT(outside, 0u);
  ASSERT_TRUE(servers[0]->heartbeat());
  EXPECT_EQ(servers[0]->drops.size(), outside);
  const SeenRouting now = routing();
  for (const auto& [slot, epoch] : servers[0]->drops) {
    EXPECT_EQ(epoch, now.groups.at(slot).epoch);
    for (const auto& [target, in_sync] : now.groups.at(slot).members) EXPECT_NE(target, 100u);
  }
  servers[0]->left_over.clear();
  ASSERT_TRUE(servers[0]->heartbeat());
  EXPECT_TRUE(servers[0]->drops.empty());
}

TEST_F(ClusterServiceTest, WipedDiskIsReplacedAndForgotten) {
  start_all();
  silence(1);
  servers[1]->kill();
  ASSERT_TRUE(wait_for([&] { return state_of(1) == "dead"; }, 1s));
  FakeServer& again = start(1, 2);
  again.target = 999;
  const std::uint64_t id = again.id;
  ASSERT_EQ(*again.join(), id);
  ASSERT_TRUE(again.register_process().has_value());
  for (const auto& [slot, group] : routing().groups)
    for (const auto& [target, in_sync] : group.members) EXPECT_NE(target, 101u);
  ASSERT_TRUE(repair(5s));
  const std::string servers_page = status(schema::StatusRequest::What::SERVERS).dump();
  EXPECT_EQ(servers_page.find(hex64(101)), std::string::npos);
  EXPECT_NE(servers_page.find(hex64(999)), std::string::npos);
}

// A live member that is taken out holds up its group until it says that it knows.
TEST_F(ClusterServiceTest, BarrierUntilTheRemovedMemberConfirms) {
  start_all();
  const std::uint32_t slot = slot_with(1);
  ASSERT_TRUE(admin(schema::AdminRequest::Command::DRAIN, servers[1]->id).has_value());
  EXPECT_EQ(state_of(1), "draining");
  silence(1);
  const SeenGroup copying = routing().groups[slot];
  ASSERT_EQ(copying.members.size(), 3u);
  FakeServer& joiner = *servers[copying.members.back().first - 100];
  (void)joiner.heartbeat({{slot, copying.epoch, schema::HeartbeatRequest::Progress::State::CAUGHT_UP}});
  SeenGroup after = routing().groups[slot];
  EXPECT_EQ(after.members.size(), 2u);
  EXPECT_TRUE(after.barrier);
  const std::uint64_t epoch = after.epoch;
  (void)servers[1]->heartbeat();  // learns of it
  EXPECT_TRUE(routing().groups[slot].barrier);
  (void)servers[1]->heartbeat();  // confirms
  after = routing().groups[slot];
  EXPECT_FALSE(after.barrier);
  EXPECT_EQ(after.epoch, epoch);
  servers[1]->silent = false;
  EXPECT_TRUE(repair(5s));
  for (const auto& [s, group] : routing().groups)
    for (const auto& [target, in_sync] : group.members) EXPECT_NE(target, 101u);
  EXPECT_NE(status(schema::StatusRequest::What::SERVERS).dump().find("retired"), std::string::npos);
}

TEST_F(ClusterServiceTest, FencesAreConfirmedByAllWhoMayServe) {
  start_all();
  auto fence = [&](std::uint64_t session) {
    return run<std::uint64_t>([&](Txn& txn) -> Result<std::uint64_t> {
             return meta->cluster->queue_fence(txn, SessionId(session));
           })
        .value();
  };
  auto confirmed = [&](std::uint64_t sequence) {
    return rpc::block_on(runtime, meta->cluster->fence_confirmed(sequence, Deadline{clock.now()}))
        .has_value();
  };
  const std::uint64_t first = fence(50);
  EXPECT_FALSE(confirmed(first));
  for (std::size_t n = 0; n < 3; ++n) {
    servers[n]->heartbeat().value();
    EXPECT_EQ(servers[n]->ended, std::vector<std::uint64_t>{50});
    EXPECT_EQ(servers[n]->reached, first);
    EXPECT_FALSE(confirmed(first));
    servers[n]->fences = first;
    servers[n]->heartbeat().value();
    EXPECT_TRUE(servers[n]->ended.empty());
  }
  EXPECT_TRUE(confirmed(first));
  // A dead server does not hold it up; one that comes back gets the whole list first.
  const std::uint64_t second = fence(51);
  for (std::size_t n : {0u, 1u}) {
    servers[n]->fences = second;
    servers[n]->heartbeat().value();
  }
  EXPECT_FALSE(confirmed(second));
  silence(2);
  EXPECT_FALSE(wait_for([&] { return confirmed(second); }, 8s));
  EXPECT_TRUE(wait_for([&] { return confirmed(second); }, 3s));
  FakeServer& back = start(2, 2);
  ASSERT_TRUE(back.register_process().has_value());
  back.heartbeat().value();
  EXPECT_EQ(back.ended, (std::vector<std::uint64_t>{50, 51}));
  const std::uint64_t third = fence(52);
  for (std::size_t n : {0u, 1u}) {
    servers[n]->fences = third;
    servers[n]->heartbeat().value();
  }
  EXPECT_FALSE(confirmed(third));
  // The list is compacted, and survives a restart.
  run<bool>([&](Txn& txn) -> Result<bool> {
    meta->cluster->set_sessions_ended_below(txn, SessionId(52));
    return true;
  }).value();
  back.fences = 0;
  back.heartbeat().value();
  EXPECT_EQ(back.ended, std::vector<std::uint64_t>{52});
  EXPECT_EQ(back.ended_below, 52u);
  restart_meta();
  ASSERT_TRUE(back.register_process().has_value());
  back.heartbeat().value();
  EXPECT_EQ(back.ended, std::vector<std::uint64_t>{52});
  EXPECT_EQ(back.ended_below, 52u);
  EXPECT_EQ(back.reached, third);
}

TEST_F(ClusterServiceTest, WaitingForAFenceEndsWithItsDeadline) {
  start_all();
  auto sequence = run<std::uint64_t>(
      [&](Txn& txn) -> Result<std::uint64_t> { return meta->cluster->queue_fence(txn, SessionId(9)); });
  auto waiting = std::async(std::launch::async, [&] {
    return rpc::block_on(runtime, meta->cluster->fence_confirmed(*sequence, Deadline::after(clock, 300ms)));
  });
  for (auto& server : servers) server->fences = 0;
  EXPECT_TRUE(wait_for([&] { return waiting.wait_for(0s) == std::future_status::ready; }, 5s));
  EXPECT_EQ(waiting.get().error().code(), Code::kTimeout);
}

TEST_F(ClusterServiceTest, PurgesAreShownSyncedDoneByAllAndTrimmed) {
  start_all();
  run<bool>([&](Txn& txn) -> Result<bool> {
    for (std::uint64_t data = 1; data <= 1500; ++data)
      meta->cluster->queue_purge(txn, DataId(data), PoolId(1), 3);
    return true;
  }).value();
  ASSERT_TRUE(wait_for([&] { return !servers[0]->orders.empty(); }, 1s));
  EXPECT_EQ(servers[0]->orders.size(), 1000u);
  EXPECT_EQ(servers[0]->orders.front().second, 1u);
  auto rows = [&] {
    std::size_t count = 0;
    EXPECT_TRUE(run<bool>([&](Txn& txn) -> Result<bool> {
                  TRYV(txn.scan(std::string(1, '\x50'), {}, [&](auto, auto) { return ++count > 0; }));
                  return true;
                }).has_value());
    return count;
  };
  EXPECT_EQ(rows(), 1500u);
  const std::uint64_t half = servers[0]->orders.back().first;
  for (auto& server : servers) server->purges = half;
  ASSERT_TRUE(wait_for([&] { return rows() == 500; }, 2s));
  EXPECT_EQ(servers[0]->orders.size(), 500u);
  const std::uint64_t all = servers[0]->orders.back().first;
  servers[0]->purges = all;
  servers[1]->purges = all;
  EXPECT_FALSE(wait_for([&] { return rows() < 500; }, 1s));  // one server has not done them
  restart_meta();
  for (auto& server : servers) ASSERT_TRUE(server->register_process().has_value());
  servers[2]->heartbeat().value();
  EXPECT_EQ(servers[2]->orders.size(), 500u);
  servers[2]->purges = all;
  EXPECT_TRUE(wait_for([&] { return rows() == 0; }, 2s));
}

TEST_F(ClusterServiceTest, LossOfTheLastCopyIsReportedAndAcceptedByTheOperator) {
  start_all();
  for (std::size_t n : {0u, 1u}) {
    silence(n);
    servers[n]->kill();
  }
  ASSERT_TRUE(wait_for([&] { return state_of(0) == "dead" && state_of(1) == "dead"; }, 2s));
  EXPECT_EQ(status()["health"], "at_risk");  // they may come back
  const std::uint64_t first = servers[0]->id;
  const std::uint64_t second = servers[1]->id;
  EXPECT_EQ(admin(schema::AdminRequest::Command::FORGET, servers[2]->id).error().code(), Code::kNotPermitted);
  EXPECT_EQ(admin(schema::AdminRequest::Command::FORGET, 99).error().code(), Code::kNotFound);
  auto forget = admin(schema::AdminRequest::Command::FORGET, first);
  auto other = admin(schema::AdminRequest::Command::FORGET, second);
  EXPECT_TRUE((!forget && forget.error().code() == Code::kNeedsOperator) ||
              (!other && other.error().code() == Code::kNeedsOperator));
  for (std::uint64_t id : {first, second}) {
    auto done = admin(schema::AdminRequest::Command::FORGET, id, true);
    EXPECT_TRUE(done.has_value() || done.error().code() == Code::kNotFound);
  }
  EXPECT_EQ(status()["groups"]["lost"], 0);
  EXPECT_EQ(status()["servers"].size(), 1u);
  for (const auto& [slot, group] : routing().groups)
    EXPECT_EQ(group.members.front(), std::make_pair(std::uint64_t{102}, true));
}

TEST_F(ClusterServiceTest, HostileRequestsAreRefused) {
  start_all();
  rpc::OutMessage many;
  many.body<schema::HeartbeatRequest>().initTargets(10'000);
  EXPECT_EQ(servers[0]->call<method::Heartbeat>(std::move(many)).error().code(), Code::kInvalidArgument);
  rpc::OutMessage twice;
  auto body = twice.body<schema::RegisterRequest>();
  body.setServer(servers[0]->id);
  body.setBoot(3);
  body.setAddress("cs0");
  auto targets = body.initTargets(2);
  targets[0].setId(1);
  targets[1].setId(1);
  EXPECT_EQ(servers[0]->call<method::Register>(std::move(twice)).error().code(), Code::kInvalidArgument);
  rpc::OutMessage empty;
  empty.body<schema::JoinRequest>();
  EXPECT_EQ(servers[0]->call<method::Join>(std::move(empty)).error().code(), Code::kInvalidArgument);
  // Reports about groups that are not the sender's, or do not exist, change nothing.
  const std::uint32_t slot = slot_where(0, false);
  const std::uint64_t epoch = routing().groups[slot].epoch;
  (void)servers[0]->heartbeat({{slot, epoch, schema::HeartbeatRequest::Progress::State::RECONCILED},
                               {777, epoch, schema::HeartbeatRequest::Progress::State::CAUGHT_UP}});
  EXPECT_EQ(routing().groups[slot].epoch, epoch);
}

// Heartbeats, routing, status and a dying server at once: for the thread sanitizer.
TEST_F(ClusterServiceTest, ManyCallersAtOnce) {
  start_all();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::size_t n = 0; n < 2; ++n)
    threads.emplace_back([&, n] {
      while (!stop) (void)servers[n]->heartbeat();
    });
  threads.emplace_back([&] {
    while (!stop) {
      (void)meta->cluster->space();
      (void)meta->cluster->default_pool();
      (void)meta->cluster->routing_version();
      (void)status();
      (void)routing(1);
    }
  });
  threads.emplace_back([&] {
    for (std::uint64_t session = 1; session < 200; ++session)
      (void)run<bool>([&](Txn& txn) -> Result<bool> {
        meta->cluster->queue_fence(txn, SessionId(session));
        meta->cluster->queue_purge(txn, DataId(session), PoolId(1), 1);
        return true;
      });
  });
  servers[2]->kill();
  for (int i = 0; i < 100; ++i) {
    clock.advance(10ms);
    std::this_thread::sleep_for(1ms);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(state_of(2), "dead");
}

}  // namespace
}  // namespace cairn::meta
