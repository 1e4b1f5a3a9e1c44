// The cluster side of the metadata server in one object: what server.cc builds, and all that it must know of
// it.
//
//   ClusterParts parts{runtime, transport, executor, clock, rng, config.cluster, cluster_id, counts,
//                      began, fatal};
//   std::unique_ptr<ClusterSide> cluster = make_cluster(std::move(parts));
//   CO_TRYV(co_await cluster->start());          // before the first request is served
//   ... Service::connected(peer): cluster->connected(peer) for every connection;
//       Service::handle(request): if (cluster->serves(request.method)) co_return co_await
//       cluster->handle(...)
//   cluster->stop();                             // after rpc::Server::stop, before Executor and Runtime go
//
// Threading: in-memory cluster state belongs to the executor thread; readers elsewhere (routing, space,
// status) get immutable snapshots. start() may be awaited anywhere; stop() blocks: call it from a thread
// outside the runtime.
#pragma once

#include <functional>
#include <memory>

#include "meta/cluster.h"
#include "meta/cluster_config.h"
#include "meta/executor.h"
#include "store/base/clock.h"
#include "store/base/rng.h"
#include "store/rpc/connection.h"
#include "store/rpc/task.h"
#include "store/rpc/transport.h"

namespace cairn::meta {

class ClusterSide : public Cluster, public ClusterService {
 public:
  // Reads the records (creates the default pool on the first start), then watches leases and plans repair
  // until stop(). kCorrupt names the record that does not decode; kIo.
  virtual rpc::Task<Result<>> start() = 0;
  virtual void stop() = 0;  // idempotent; also if start() failed
};

// References outlive the object. `rng` is used on the executor thread only. `counts` is called on an io
// thread and must not block.
struct ClusterParts {
  rpc::Runtime& runtime;
  rpc::Transport& transport;
  Executor& executor;
  Clock& clock;
  Rng& rng;
  ClusterConfig config;
  ClusterId cluster;
  std::function<NamespaceCounts()> counts;
  // The journal's position when the store was opened, before anything was written in this run.
  JournalPosition began;
  // Called on a thread of the runtime when the metadata is found to have gone back in time, after that was
  // stored: nothing more may be served.
  std::function<void(const Error&)> fatal;
};
std::unique_ptr<ClusterSide> make_cluster(ClusterParts parts);

}  // namespace cairn::meta
