#include "meta/cluster_impl.h"

#include "meta/cluster_core.h"
#include "meta/cluster_service.h"

namespace cairn::meta {
namespace {

class ClusterImpl final : public ClusterSide {
 public:
  explicit ClusterImpl(ClusterParts parts) : clock_(parts.clock), core_(std::move(parts)) {}

  rpc::Task<Result<>> start() override { return core_.start(); }
  void stop() override { core_.stop(); }

  PoolInfo default_pool() const override { return core_.default_pool(); }
  SpaceInfo space() const override { return core_.space(); }
  std::uint64_t routing_version() const override {
    const auto table = core_.table();
    return table ? table->version : 0;
  }
  void queue_purge(Txn& txn, DataId data, PoolId pool, std::uint32_t chunks) override {
    core_.queue_purge(txn, PurgeRecord{data, pool, chunks});
  }
  rpc::Task<Result<bool>> purged(Deadline deadline) override { return core_.purged(deadline); }
  std::uint64_t queue_fence(Txn& txn, SessionId session) override { return core_.queue_fence(txn, session); }
  rpc::Task<Result<>> fence_confirmed(std::uint64_t sequence, Deadline deadline) override {
    return core_.fence_confirmed(sequence, deadline);
  }
  void set_sessions_ended_below(Txn& txn, SessionId lowest_living) override {
    core_.set_sessions_ended_below(txn, lowest_living);
  }

  bool serves(std::uint16_t method) const override { return cluster_serves(method); }
  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override {
    return handle_cluster_request(core_, clock_, std::move(request));
  }
  void connected(const std::shared_ptr<rpc::Peer>& peer) override { core_.connected(peer); }

 private:
  Clock& clock_;
  ClusterCore core_;
};

}  // namespace

std::unique_ptr<ClusterSide> make_cluster(ClusterParts parts) {
  return std::make_unique<ClusterImpl>(std::move(parts));
}

}  // namespace cairn::meta
