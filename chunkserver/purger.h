// Carries out purge orders: removes all chunks of a data id from every target, then remembers how far it got.
//
// Only the metadata server orders this, when no record refers to the data id and no session that could write
// it lives. An order is done when it is done on every target that works; progress is durable before it is
// reported, so an order is never reported done and then forgotten. Thread-safe.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "chunkserver/group_table.h"
#include "chunkserver/heartbeat.h"

namespace cairn::chunkserver {

class Purger {
 public:
  // `joins`: whether groups are being copied to here.
  Purger(rpc::Runtime& runtime, std::vector<Target*> targets, PurgedIds& purged, std::function<bool()> joins,
         std::function<void()> heartbeat_now);

  // Once, before start(): what the targets remember. The lowest counts.
  Result<> restore(const std::vector<disk::ChunkEngine*>& engines);
  void start(rpc::TaskGroup& tasks);
  void add(const std::vector<PurgeOrder>& orders);
  std::uint64_t done() const { return done_.load(); }

 private:
  rpc::Task<> run();
  using DataIds = std::unordered_set<DataId>;
  // kCancelled: the server stops. After any error: some may be gone, the call may be repeated.
  rpc::Task<Result<>> purge(Target& target, std::vector<PurgeOrder> orders);
  rpc::Task<Result<>> purge_found(Target& target, PoolId pool, DataIds ids);

  rpc::Runtime& runtime_;
  const std::vector<Target*> targets_;
  PurgedIds& purged_;
  const std::function<bool()> joins_;
  const std::function<void()> heartbeat_now_;
  rpc::Event wake_;
  std::atomic<std::uint64_t> done_{0};
  std::mutex mutex_;
  std::deque<PurgeOrder> queue_;   // by sequence; guarded by mutex_
  std::uint64_t last_queued_ = 0;  // guarded by mutex_
};

}  // namespace cairn::chunkserver
