// For tests of the service: the namespace side over a map store and an in-memory network, with a cluster
// whose fences a test confirms, and clients that answer recalls as the test says. Time is the test's.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "meta/journal.h"
#include "meta/ops/testing.h"
#include "meta/service.h"
#include "meta/single_writer.h"
#include "meta/store_format.h"
#include "store/rpc/transport.h"

namespace cairn::meta::testing {

using namespace std::chrono_literals;

class TestClock final : public Clock {  // thread-safe
 public:
  TimePoint now() const override { return {now_.load()}; }
  std::int64_t wall_ns() const override { return 1'700'000'000'000'000'000 + now_.load(); }
  void advance(Duration by) { now_ += by.count(); }

 private:
  std::atomic<std::int64_t> now_{1'000'000'000};
};

class GatedCluster final : public FakeCluster, public ClusterService {
 public:
  explicit GatedCluster(rpc::Runtime& runtime) : gate_(runtime) { gate_.set(); }
  rpc::Task<Result<>> fence_confirmed(std::uint64_t, Deadline deadline) override {
    return gate_.wait(deadline);
  }
  bool serves(std::uint16_t) const override { return false; }
  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request) override {
    co_return fail(Code::kUnimplemented, "fake");
  }
  void connected(const std::shared_ptr<rpc::Peer>&) override {}
  rpc::Event& gate() { return gate_; }

 private:
  rpc::Event gate_;
};

struct TestLimits {
  std::size_t leases_per_session = 1000;
  std::chrono::milliseconds lease{10'000};
  std::chrono::nanoseconds retention{0};
};

// One life of the server process.
class TestServer {
 public:
  TestServer(rpc::Runtime& runtime, TestClock& clock, rpc::Transport& transport,
             const MapKvStore::Content& content, const std::string& boot, const TestLimits& limits = {})
      : runtime_(runtime),
        clock_(clock),
        kv(content),
        cluster(runtime),
        sessions(clock, limits.lease),
        tasks_(runtime) {
    SeededRng rng(1);
    StoreOptions options;
    options.init = true;
    options.boot_id = boot;
    identity_ = open_store(kv, options, rng).value();
    journal_ = open_local_journal(kv, identity_.era).value();
    executor_ = SingleWriter::start(kv, *journal_, clock_, identity_.era, [](const Error&) {}).value();
    keeper.emplace(
        SessionKeeper::Parts{runtime_, tasks_, *executor_, sessions, replies_, cluster, {limits.lease, 1h}});
    arbiter =
        LeaseArbiter::create({runtime_,
                              tasks_,
                              *executor_,
                              sessions,
                              cluster,
                              {limits.leases_per_session, 60s, limits.retention},
                              [this](SessionId id, std::string why) { keeper->end(id, std::move(why)); }});
    keeper->set_arbiter(arbiter);
    CHECK(rpc::block_on(runtime_, keeper->start(identity_.end_sessions)).has_value(), "sessions load");
    service_ = std::make_unique<MetaService>(MetaService::Parts{
        runtime_, *executor_, sessions, *keeper, *arbiter, replies_, cluster, cluster, counters,
        identity_.cluster, limits.lease, identity_.feature_level, [this] { return !kv.full(); }});
    wire_.role = rpc::Role::kMeta;
    wire_.cluster = [id = identity_.cluster] { return id; };
    wire_.id = [] { return std::uint64_t{0}; };
    wire_.program = "test";
    server_ = rpc::Server::start(runtime_, transport, "meta", *service_, wire_).value();
  }
  ~TestServer() { close(); }
  // What a kill (all that was accepted) or a power cut (what was synced) would leave; then ends this life.
  MapKvStore::Content kill() {
    auto content = kv.after_kill();
    close();
    return content;
  }
  MapKvStore::Content power_cut() {
    auto content = kv.after_power_cut();
    close();
    return content;
  }
  Executor& executor() { return *executor_; }
  SingleWriter& writer() { return *executor_; }
  Era era() const { return identity_.era; }

 private:
  void close() {
    if (!server_) return;
    cluster.gate().set();
    server_->stop(Deadline::after(clock_, 1s));
    server_.reset();
    tasks_.close_blocking();
    executor_->stop();
  }
  rpc::Runtime& runtime_;
  TestClock& clock_;

 public:
  MapKvStore kv;
  GatedCluster cluster;
  SessionTable sessions;
  SharedCounters counters;
  std::optional<SessionKeeper> keeper;
  std::shared_ptr<LeaseArbiter> arbiter;

 private:
  ReplyTable replies_;
  rpc::TaskGroup tasks_;
  StoreIdentity identity_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<SingleWriter> executor_;
  std::unique_ptr<MetaService> service_;
  rpc::Identity wire_;
  std::unique_ptr<rpc::Server> server_;
};

// One client process. Calls block the test's thread unless they return a Task.
class TestClient final : public rpc::Service {
 public:
  TestClient(rpc::Runtime& runtime, TestClock& clock, rpc::Transport& transport)
      : runtime_(runtime), clock_(clock), transport_(transport), answer_(runtime) {
    answer_.set();
    wire_.role = rpc::Role::kClient;
    wire_.cluster = [] { return ClusterId{}; };
    wire_.id = [] { return std::uint64_t{0}; };
    wire_.program = "test client";
    connect();
  }
  ~TestClient() override { channel_->stop(Deadline::after(clock_, 5s)); }
  // A new connection, without the backoff (which would wait for the test's clock).
  void connect() {
    if (channel_) channel_->close();
    channel_ = rpc::Channel::create(runtime_, transport_, "meta", wire_, this);
  }

  Deadline soon() const { return Deadline::after(clock_, 20s); }

  template <class M, class Fill>
  rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> call_async(Fill fill) {
    rpc::OutMessage message;
    fill(message.body<typename M::Request>());
    return send<M>(channel_, std::move(message), soon());
  }
  template <class M, class Fill>
  Result<rpc::Reply<typename M::ReplyBody>> call(Fill fill) {
    return rpc::block_on(runtime_, call_async<M>(std::move(fill)));
  }
  // A mutation with the next sequence (or the given one).
  template <class M, class Fill>
  rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> mutate_async(Fill fill, std::uint64_t sequence = 0) {
    if (sequence == 0) sequence = ++sequence_;
    return call_async<M>([this, fill = std::move(fill), sequence](typename M::Request::Builder body) {
      auto mutation = body.initMutation();
      mutation.setSession(session.value());
      mutation.setSequence(sequence);
      mutation.setAwaited(awaited);
      fill(body);
    });
  }
  template <class M, class Fill>
  Result<rpc::Reply<typename M::ReplyBody>> mutate(Fill fill, std::uint64_t sequence = 0) {
    return rpc::block_on(runtime_, mutate_async<M>(std::move(fill), sequence));
  }

  bool open_session(SessionId resume = {}) {
    if (resume.valid()) connect();
    auto reply = call<rpc::method::OpenSession>([&](schema::OpenSessionRequest::Builder body) {
      body.setName("test");
      body.setResume(resume.value());
    });
    CHECK(reply.has_value(), reply ? "" : reply.error().to_string());
    session = SessionId((*reply)->getSession());
    return (*reply)->getResumed();
  }
  Code keep_alive() {
    auto reply = call<rpc::method::KeepAlive>(
        [&](schema::KeepAliveRequest::Builder body) { body.setSession(session.value()); });
    return reply ? Code::kOk : reply.error().code();
  }
  Code reassert(std::vector<std::uint64_t> exclusive, std::vector<std::uint64_t> shared,
                std::vector<std::uint64_t> open) {
    auto reply = call<rpc::method::Reassert>([&](schema::ReassertRequest::Builder body) {
      body.setSession(session.value());
      const auto fill = [](auto list, const std::vector<std::uint64_t>& from) {
        for (unsigned i = 0; i < from.size(); ++i) list.set(i, from[i]);
      };
      fill(body.initExclusive(static_cast<unsigned>(exclusive.size())), exclusive);
      fill(body.initShared(static_cast<unsigned>(shared.size())), shared);
      fill(body.initOpen(static_cast<unsigned>(open.size())), open);
      body.setLast(true);
    });
    return reply ? Code::kOk : reply.error().code();
  }

  struct Made {
    std::uint64_t inode = 0;
    std::uint64_t generation = 0;  // exclusive
    bool created = false;
  };
  static void fill_make(schema::MakeRequest::Builder body, std::uint64_t parent, const std::string& name,
                        std::uint32_t mode, bool open) {
    body.setParent(parent);
    body.setName(rpc::data(name));
    body.setMode(mode);
    body.setOpen(open);
    body.setExclusive(true);
  }
  Result<Made> make(const std::string& name, std::uint32_t mode = S_IFREG | 0644, bool open = false,
                    std::uint64_t parent = 1, std::uint64_t sequence = 0) {
    auto reply = mutate<rpc::method::Make>(
        [&](schema::MakeRequest::Builder body) { fill_make(body, parent, name, mode, open); }, sequence);
    if (!reply) return std::unexpected(reply.error());
    Made made{(*reply)->getAttr().getInode(), 0, (*reply)->getCreated()};
    for (const auto grant : (*reply)->getGrants()) {
      if (grant.getInode() == made.inode && grant.getKind() == schema::LeaseKind::EXCLUSIVE) {
        made.generation = grant.getGeneration();
      }
    }
    return made;
  }
  Result<rpc::Reply<schema::LookupReply>> lookup(const std::string& name, std::uint64_t parent = 1) {
    return call<rpc::method::Lookup>([&](schema::LookupRequest::Builder body) {
      body.setSession(session.value());
      body.setParent(parent);
      body.setName(rpc::data(name));
    });
  }
  static void fill_chmod(schema::SetAttrRequest::Builder body, std::uint64_t inode, std::uint32_t mode) {
    body.setInode(inode);
    body.setValid(1);
    body.initAttr().setMode(mode);
  }
  Code chmod(std::uint64_t inode, std::uint32_t mode) {
    auto reply = mutate<rpc::method::SetAttr>(
        [&](schema::SetAttrRequest::Builder body) { fill_chmod(body, inode, mode); });
    return reply ? Code::kOk : reply.error().code();
  }
  static void fill_report(schema::ReportRequest::Builder body, std::uint64_t inode, std::uint64_t generation,
                          std::uint64_t size, schema::LeaseKind keep, std::uint32_t closed) {
    auto item = body.initItems(1)[0];
    item.setInode(inode);
    item.setGeneration(generation);
    item.setHasSize(true);
    item.setSize(size);
    auto written = item.initWritten(1);
    written[0].setFrom(0);
    written[0].setTo((size + 4095) / 4096);
    item.setBytes(size);
    item.setClosed(closed);
    item.setKeep(keep);
  }
  // The item's code.
  Code report(std::uint64_t inode, std::uint64_t generation, std::uint64_t size,
              schema::LeaseKind keep = schema::LeaseKind::EXCLUSIVE, std::uint32_t closed = 0) {
    auto reply = mutate<rpc::method::Report>([&](schema::ReportRequest::Builder body) {
      fill_report(body, inode, generation, size, keep, closed);
    });
    if (!reply) return reply.error().code();
    return code_from_number((*reply)->getCodes()[0]);
  }

  // --- recalls ---
  struct Recalled {
    std::uint64_t inode;
    schema::LeaseKind keep;
    std::uint64_t generation;
  };
  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override {
    if (request.method == rpc::method::LocksSettled::kNumber) {
      {
        std::lock_guard lock(mutex_);
        for (const auto item : request.body<rpc::method::LocksSettled>().getItems())
          settled_.push_back({item.getTicket(), item.getOutcome()});
      }
      rpc::OutMessage out;
      out.body<schema::Empty>();
      co_return out;
    }
    std::vector<Recalled> items;
    for (const auto item : request.body<rpc::method::Recall>().getRecalls()) {
      items.push_back({item.getInode(), item.getKeep(), item.getGeneration()});
    }
    {
      std::lock_guard lock(mutex_);
      recalled_.insert(recalled_.end(), items.begin(), items.end());
    }
    auto may = co_await answer_.wait(Deadline::never());
    if (!may) co_return std::unexpected(may.error());
    if (on_recall) {
      for (const Recalled& item : items) {
        auto flushed = co_await on_recall(item);
        if (!flushed) co_return std::unexpected(flushed.error());
      }
    }
    rpc::OutMessage out;
    out.body<schema::Empty>();
    co_return out;
  }
  struct SettledLock {
    std::uint64_t ticket;
    schema::LockOutcome outcome;
  };
  std::vector<SettledLock> settled() const {
    std::lock_guard lock(mutex_);
    return settled_;
  }
  std::vector<Recalled> recalled() const {
    std::lock_guard lock(mutex_);
    return recalled_;
  }
  rpc::Event& answer() { return answer_; }  // reset: recalls are left unanswered
  std::function<rpc::Task<Result<>>(Recalled)> on_recall;

  SessionId session;
  std::uint64_t awaited = 0;

 private:
  template <class M>
  static rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> send(std::shared_ptr<rpc::Channel> channel,
                                                                   rpc::OutMessage message,
                                                                   Deadline deadline) {
    auto reply = co_await channel->call<M>(std::move(message), deadline);
    co_return reply;
  }
  rpc::Runtime& runtime_;
  TestClock& clock_;
  rpc::Transport& transport_;
  rpc::Event answer_;
  rpc::Identity wire_;
  std::shared_ptr<rpc::Channel> channel_;
  std::atomic<std::uint64_t> sequence_{0};
  mutable std::mutex mutex_;
  std::vector<Recalled> recalled_;
  std::vector<SettledLock> settled_;
};

// Starts a task and lets the test look whether it has ended.
template <class T>
class Running {
 public:
  Running(rpc::Runtime& runtime, rpc::Task<T> task) : state_(std::make_shared<State>()) {
    rpc::asio::co_spawn(runtime.executor(), keep(state_, std::move(task)), rpc::asio::detached);
  }
  bool done() const {
    std::lock_guard lock(state_->mutex);
    return state_->value.has_value();
  }
  T get() {  // blocks (at most half a minute of real time)
    std::unique_lock lock(state_->mutex);
    const bool came = state_->changed.wait_for(lock, 30s, [this] { return state_->value.has_value(); });
    CHECK(came, "a call of the test did not end");
    return std::move(*state_->value);
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<T> value;
  };
  static rpc::Task<> keep(std::shared_ptr<State> state, rpc::Task<T> task) {
    auto value = co_await std::move(task);
    std::lock_guard lock(state->mutex);
    state->value.emplace(std::move(value));
    state->changed.notify_all();
  }
  std::shared_ptr<State> state_;
};

}  // namespace cairn::meta::testing
