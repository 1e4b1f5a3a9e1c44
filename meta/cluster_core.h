// The cluster side at work: owns the state, runs the reconfiguration steps, and answers chunkservers,
// operators and the namespace side in plain structs (cluster_service.cc translates to and from the wire).
//
// Threading. State, fences, purges, links and waiters belong to the executor thread: requests run as executor
// operations. The published routing table, space and pool are behind a mutex and read by anybody. One task
// runs the steps, one after the other:
//
//   wait for a reason or the tick -> reconfigure() as an operation -> sync the journal if it wrote -> publish
//   the table
//   -> on the executor: wake those that wait for this step, poke the servers concerned
//
// so that no table is seen before its epochs are durable, and tables appear in order. A heartbeat that
// arrives while a step is on its way is answered after it: whoever gets a lease also gets every change that
// was decided before.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "meta/cluster_fences.h"
#include "meta/cluster_impl.h"
#include "meta/cluster_purges.h"
#include "meta/cluster_reconfigure.h"
#include "meta/cluster_registry.h"
#include "meta/cluster_state.h"
#include "meta/cluster_status.h"
#include "meta/heartbeat_links.h"
#include "meta/journal_guard.h"

namespace cairn::meta {

class ClusterCore {
 public:
  explicit ClusterCore(ClusterParts parts);
  ~ClusterCore();
  rpc::Task<Result<>> start();
  void stop();

  // --- any thread ---
  std::shared_ptr<const RoutingTable> table() const;
  PoolInfo default_pool() const;
  SpaceInfo space() const;
  const ClusterConfig& config() const { return parts_.config; }
  ClusterId cluster() const { return parts_.cluster; }
  void connected(const std::shared_ptr<rpc::Peer>& peer);

  struct Joined {
    ServerId server;
    Era era;
  };
  rpc::Task<Result<Joined>> join(JoinInput input);

  struct Registered {
    Era era;
    std::uint8_t min_replicas = 1;
  };
  rpc::Task<Result<Registered>> register_process(RegisterInput input, std::shared_ptr<rpc::Peer> peer,
                                                 TimePoint arrived, Deadline deadline);

  struct Beat {
    std::shared_ptr<const RoutingTable> table;
    FenceLog::Delta fences;
    std::vector<PurgeQueue::Row> purges;
    JournalPosition journal;
    std::vector<TargetId> retired;
    std::vector<DropOrder> drops;
  };
  rpc::Task<Result<Beat>> heartbeat(HeartbeatInput input, std::shared_ptr<rpc::Peer> peer, TimePoint arrived,
                                    Deadline deadline);

  enum class AdminCommand { kDrain, kUndrain, kForget };
  rpc::Task<Result<>> admin(AdminCommand command, ServerId server, Loss loss, Deadline deadline);
  enum class StatusPage { kStatus, kServers, kGroups };
  rpc::Task<Result<std::string>> status(StatusPage page);

  // --- for meta/cluster.h ---
  void queue_purge(Txn& txn, const PurgeRecord& order);
  std::uint64_t queue_fence(Txn& txn, SessionId session);
  rpc::Task<Result<>> fence_confirmed(std::uint64_t sequence, Deadline deadline);
  rpc::Task<Result<bool>> purged(Deadline deadline);
  void set_sessions_ended_below(Txn& txn, SessionId lowest_living);

 private:
  struct Waiter {
    std::function<bool()> ready;
    std::shared_ptr<rpc::Event> event;
  };
  struct StepResult {
    Reconfiguration change;
    std::uint64_t ticket = 0;
    std::uint64_t purges_last = 0;
    bool purges_new = false;
    SpaceInfo space;
  };

  rpc::Task<> run_steps();
  rpc::Task<> stop_for_good(Error found);
  rpc::Task<Result<>> step();
  Result<StepResult> run_step(Txn& txn);       // executor
  Result<> trim_purges(Txn& txn);              // executor
  void finish_step(const StepResult& result);  // executor
  void publish(const StepResult& result);
  // Executor: a step must run; the event is set when it is published. Null if nothing is under way and none
  // is asked for.
  std::shared_ptr<rpc::Event> after_step(bool needed);
  void check_waiters();                          // executor
  bool confirmed(std::uint64_t sequence) const;  // executor
  bool purged_to(std::uint64_t sequence) const;  // executor
  void server_gone(ServerId server);             // executor
  std::uint64_t shown_version() const { return shown_ ? shown_->version : 0; }

  ClusterParts parts_;
  rpc::TaskGroup tasks_;
  std::shared_ptr<HeartbeatLinks> links_;
  rpc::Event wake_;
  bool started_ = false;

  // Executor thread only.
  ClusterState state_;
  FenceLog fences_;
  PurgeQueue purges_;
  std::shared_ptr<const RoutingTable> shown_;  // made by the latest step
  std::uint64_t requested_ = 0;                // steps asked for or run
  std::uint64_t completed_ = 0;                // published up to here
  std::vector<Waiter> waiters_;
  CopyRate rate_;
  JournalGuard guard_;
  std::optional<Error> went_back_;  // what the guard found: nothing is served any more

  mutable std::mutex mutex_;
  std::shared_ptr<const RoutingTable> table_;  // guarded by mutex_; published
  SpaceInfo space_{.known = false};            // guarded by mutex_
};

}  // namespace cairn::meta
