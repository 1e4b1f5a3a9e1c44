// For tests of operations: a store with a root directory, a cluster that writes down what is purged and
// fenced, and a gate without other sessions. No threads.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "meta/ops/objects.h"
#include "meta/ops/operations.h"
#include "meta/store_format.h"
#include "meta/txn_overlay.h"

namespace cairn::meta::testing {

// Thread-safe.
class FakeCluster : public Cluster {
 public:
  PoolInfo default_pool() const override { return {PoolId(1), 128, 2, 2, chunk_size}; }
  SpaceInfo space() const override {
    std::lock_guard lock(mutex_);
    return space_;
  }
  std::uint64_t routing_version() const override { return 7; }
  void queue_purge(Txn& txn, DataId data, PoolId, std::uint32_t chunks) override {
    txn.on_commit([this, data, chunks] {
      std::lock_guard lock(mutex_);
      purges_.push_back({data, chunks});
    });
  }
  rpc::Task<Result<bool>> purged(Deadline) override { co_return false; }
  std::uint64_t queue_fence(Txn&, SessionId session) override {
    std::lock_guard lock(mutex_);
    fenced_.push_back(session);
    return fenced_.size();
  }
  rpc::Task<Result<>> fence_confirmed(std::uint64_t, Deadline) override { co_return Result<>{}; }
  void set_sessions_ended_below(Txn&, SessionId lowest) override {
    std::lock_guard lock(mutex_);
    ended_below_ = lowest;
  }

  struct Purge {
    DataId data;
    std::uint32_t chunks;
  };
  std::vector<Purge> purges() const {
    std::lock_guard lock(mutex_);
    return purges_;
  }
  std::vector<SessionId> fenced() const {
    std::lock_guard lock(mutex_);
    return fenced_;
  }
  SessionId ended_below() const {
    std::lock_guard lock(mutex_);
    return ended_below_;
  }
  void set_space(SpaceInfo space) {
    std::lock_guard lock(mutex_);
    space_ = space;
  }
  std::uint32_t chunk_size = 4096;  // before anything is made

 private:
  mutable std::mutex mutex_;
  SpaceInfo space_{1 << 30, 1 << 30, false};
  std::vector<Purge> purges_;
  std::vector<SessionId> fenced_;
  SessionId ended_below_;
};

class OpenGate final : public ops::LeaseGate {
 public:
  void reads(InodeId) override {}
  void changes(InodeId) override {}
  Result<> settle() override { return {}; }
  bool held_elsewhere(InodeId) override { return false; }
  void deleted(InodeId) override {}
  void lingers(InodeId inode) override { lingering.push_back(inode); }
  std::vector<InodeId> lingering;
};

class OpRunner final : public IdSource {
 public:
  OpRunner() {
    StoreOptions options;
    options.init = true;
    SeededRng rng(1);
    CHECK(open_store(kv, options, rng).has_value(), "formatting an empty map");
  }
  std::uint64_t next() override { return with_era(Era(1), next_id_++); }
  Era era() const override { return Era(1); }

  // Runs `operation(Env&)`; its writes count if it succeeds.
  template <class Operation>
  auto run(SessionId session, Operation operation) {
    const StagedWrites nothing;
    OverlayTxn txn(kv, nothing, *this, ++wall_ns);
    ops::Env env{txn, cluster, gate, session, retention_ns};
    auto result = operation(env);
    if (!result) return result;
    KvBatch batch;
    for (auto& [key, value] : txn.writes()) batch.push_back({key, value});
    CHECK(kv.write(batch).has_value(), "a map store takes everything");
    for (auto& action : txn.actions()) action();
    return result;
  }

  MapKvStore kv;
  FakeCluster cluster;
  OpenGate gate;
  std::int64_t wall_ns = 1000;
  std::int64_t retention_ns = 0;  // by default nothing is kept

 private:
  std::uint64_t next_id_ = 1024;
};

}  // namespace cairn::meta::testing
