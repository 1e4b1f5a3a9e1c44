// What the namespace and session side of the metadata server asks of the cluster side (servers, groups,
// routing, fences, purges). Implemented in meta/cluster_*.cc. The two sides know each other only through this
// header and Txn.
//
// Threading: members marked [executor] run on the executor thread only; the others are thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "meta/executor.h"
#include "meta/txn.h"
#include "store/base/ids.h"
#include "store/rpc/connection.h"

namespace cairn::meta {

struct PoolInfo {
  PoolId id;
  std::uint32_t slots = 0;
  std::uint8_t replicas = 2;
  std::uint8_t min_replicas = 2;  // min(2, replicas, failure domains there are)
  std::uint32_t chunk_size = 0;
};

struct SpaceInfo {
  std::uint64_t total_bytes = 0;  // as a user sees it: raw / replicas
  std::uint64_t available_bytes = 0;
  bool near_full = false;  // a server is: clients write through instead of back
  // False for a moment after a start: a chunkserver has not told yet what it has, and is not known to be
  // dead.
  bool known = true;
  bool scarce = false;  // all servers together are nearly full: what is in the trash makes room
};

class Cluster {
 public:
  virtual ~Cluster() = default;
  virtual PoolInfo default_pool() const = 0;
  virtual SpaceInfo space() const = 0;
  virtual std::uint64_t routing_version() const = 0;

  // [executor] Adds a purge order for chunks [0, chunks) of `data` to the durable queue, in the same batch.
  // Callers queue only data ids that no record refers to and that no living session may still write.
  virtual void queue_purge(Txn& txn, DataId data, PoolId pool, std::uint32_t chunks) = 0;

  // Ends when every chunkserver that is up has done all purge orders queued by now. True: there were some.
  virtual rpc::Task<Result<bool>> purged(Deadline deadline) = 0;

  // [executor] Journals that `session` ended; returns the fence's sequence. Chunkservers are poked on commit.
  virtual std::uint64_t queue_fence(Txn& txn, SessionId session) = 0;
  // Ends when every chunkserver refuses all sessions fenced up to `sequence`, or its own lease has run out.
  virtual rpc::Task<Result<>> fence_confirmed(std::uint64_t sequence, Deadline deadline) = 0;
  // [executor] Every session below this id has ended (compacts the chunkservers' lists).
  virtual void set_sessions_ended_below(Txn& txn, SessionId lowest_living) = 0;
};

// The cluster side's services for chunkservers, routing and operators. Called from the wire entry.
// Methods: GetRouting, Status (status, servers, groups), Admin, Join, Register, Heartbeat.
class ClusterService {
 public:
  virtual ~ClusterService() = default;
  virtual bool serves(std::uint16_t method) const = 0;
  virtual rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) = 0;
  // Called from rpc::Service::connected for every connection. Takes over Peer::on_close of those with
  // Role::kChunkserver (a closed heartbeat connection starts the check whether the process is gone); leaves
  // others alone.
  virtual void connected(const std::shared_ptr<rpc::Peer>& peer) = 0;
};

// What the cluster side asks of the namespace side for `status --json`.
struct NamespaceCounts {
  std::uint64_t files = 0;
  std::uint64_t objects = 0;
  std::uint64_t sessions = 0;
  bool store_full = false;  // the file system on which the metadata lies
  std::uint64_t trash_files = 0;
  std::uint64_t trash_bytes = 0;
};

}  // namespace cairn::meta
