// The wire entry: decodes requests of clients and other members, finds the group, encodes the reply.
// Thread-safe.
#pragma once

#include <atomic>

#include "chunkserver/group_table.h"
#include "store/rpc/connection.h"

namespace cairn::chunkserver {

class ChunkService final : public rpc::Service {
 public:
  ChunkService(GroupEnv& env, const GroupTable& groups, std::vector<Target*> targets, ServerId server,
               Quota& write_bytes, LatencyMeter& latency);

  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override;

  // Refuses what clients ask from now on; hops, copies and what is under way go on.
  void refuse_clients() { refusing_.store(true, std::memory_order_release); }
  std::uint64_t clients_under_way() const { return under_way_.load(std::memory_order_acquire); }

 private:
  rpc::Task<Result<rpc::OutMessage>> handle_client(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> write(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> read(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> sync(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> forward(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> list_chunks(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> fetch(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> reversion(rpc::Request request);
  rpc::Task<Result<rpc::OutMessage>> other(rpc::Request request);
  Result<rpc::OutMessage> status() const;
  // Requests without a deadline get one: nothing waits without limit.
  Deadline limited(Deadline deadline) const;

  GroupEnv& env_;
  const GroupTable& groups_;
  const std::vector<Target*> targets_;
  const ServerId server_;
  Quota& write_bytes_;
  LatencyMeter& latency_;
  std::atomic<bool> refusing_{false};
  std::atomic<std::uint64_t> under_way_{0};
};

}  // namespace cairn::chunkserver
