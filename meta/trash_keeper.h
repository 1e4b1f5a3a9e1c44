// TrashKeeper: empties the trash in the background, in bounded steps: what has expired, and what expires
// first while the chunkservers all together are nearly full. reclaim() does the latter for a writer that was
// refused by a full server: nobody is refused because of what lies in the trash.
//
// A restart goes on where the rows say. Public members: any thread. Owned by the server; run() is spawned
// into its TaskGroup.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "meta/lease_arbiter.h"

namespace cairn::meta {

class TrashKeeper {
 public:
  // `publish` is told the counters when they have changed [executor].
  TrashKeeper(rpc::Runtime& runtime, Cluster& cluster, std::shared_ptr<LeaseArbiter> arbiter,
              std::function<void(const Counters&)> publish)
      : runtime_(runtime), cluster_(cluster), arbiter_(std::move(arbiter)), publish_(std::move(publish)) {}

  rpc::Task<> run();
  // What expires first goes, at least `bytes`; ends when their space is free. False: there was nothing, and
  // nothing else was on its way.
  rpc::Task<Result<bool>> reclaim(std::uint64_t bytes, Deadline deadline);

 private:
  struct Reclaiming {
    explicit Reclaiming(rpc::Runtime& runtime) : done(runtime) {}
    rpc::Event done;
    std::atomic<bool> freed{false};
    std::atomic<bool> failed{false};
  };
  rpc::Task<Result<ops::ExpireResult>> expire(bool due, std::uint64_t bytes);
  rpc::Task<Result<>> round();
  rpc::Task<Result<bool>> free_some(std::uint64_t bytes, Deadline deadline);

  rpc::Runtime& runtime_;
  Cluster& cluster_;
  const std::shared_ptr<LeaseArbiter> arbiter_;
  const std::function<void(const Counters&)> publish_;
  std::mutex mutex_;
  std::shared_ptr<Reclaiming> reclaiming_;  // guarded by mutex_: one that is under way
};

}  // namespace cairn::meta
