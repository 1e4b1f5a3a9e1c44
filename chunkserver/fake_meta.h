// Test support: the cluster side of a metadata server in a hundred lines, without journal, placement or
// clients. It keeps the routing table in memory and follows the rules of docs/replication.md: a member that
// restarted or was reported dead leaves the set if another one of the set is left that did not; if all
// restarted the group reconciles; former members come back as joiners and are promoted when they report that
// they caught up; a live member that is removed raises the barrier until it confirmed. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "chunkserver/group_config.h"
#include "chunkserver/heartbeat.h"
#include "store/rpc/connection.h"

namespace cairn::chunkserver {

class FakeMeta final : public rpc::Service {
 public:
  static constexpr PoolId kPool{1};

  FakeMeta(rpc::Runtime& runtime, ClusterId cluster, std::uint32_t slots, std::uint8_t min_replicas)
      : runtime_(runtime), cluster_(cluster), slots_(slots), min_replicas_(min_replicas) {}

  Result<> listen(rpc::Transport& transport, const std::string& address);
  void stop();

  void add_server(ServerId server, TargetId target);                  // known before it registers
  void set_group(std::uint32_t slot, std::vector<TargetId> members);  // all in sync, first epoch
  void server_died(ServerId server);                                  // its process is gone for sure
  void replace(TargetId by);  // every group that lacks a member: this target belongs to it from now on
  void all_died();            // at once: a power cut
  void remove_member(std::uint32_t slot,
                     TargetId target);       // alive: with a barrier; it may come back as a joiner
  void keep_out(TargetId target, bool out);  // whether it may be made a joiner
  void end_session(SessionId session);
  void purge(DataId data, std::uint32_t chunks);
  // Left over groups are answered with orders to drop when they are whole without the target, unless off.
  void set_reclaim(bool on);
  void order_drop(DropOrder order);  // once, with the next heartbeat of the target's server, right or wrong
  void set_silent(bool silent);      // heartbeats are not answered
  void set_lease(Duration lease);

  GroupConfig group(std::uint32_t slot) const;
  std::string address_of(TargetId target) const;  // empty: it never registered
  bool whole(std::size_t replicas) const;         // every group has that many in sync, open
  std::uint64_t fences_confirmed(ServerId server) const;
  std::uint64_t purges_confirmed(ServerId server) const;
  std::uint64_t unknown_chunks(ServerId server) const;
  std::uint64_t left_over(ServerId server) const;   // groups, as last reported
  std::uint64_t heartbeats(ServerId server) const;  // so far
  std::uint64_t registrations() const;
  TargetId target_of(ServerId server) const;

  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override;

 private:
  struct Server {
    TargetId target;
    std::string address;
    bool up = false;
    bool failed = false;  // its target
    std::uint64_t boot = 0;
    std::uint64_t routing = 0;
    std::uint64_t fences = 0;
    std::uint64_t purges = 0;
    std::uint64_t unknown = 0;
    std::uint64_t left_over = 0;
    std::uint64_t heartbeats = 0;
    bool kept_out = false;
  };
  struct Progress {
    std::uint64_t epoch = 0;
    schema::HeartbeatRequest::Progress::State state{};
  };
  struct Group {
    GroupConfig config;
    std::uint64_t version = 0;
    std::size_t replicas = 0;
    std::vector<TargetId> all;                // who belongs to it
    std::map<TargetId, std::uint64_t> boots;  // of the in-sync members, when they entered
    std::map<TargetId, std::uint64_t> waits;  // removed members, and the version they must confirm
    std::map<TargetId, Progress> progress;
    std::map<TargetId, std::uint64_t> reconciling;  // the boots that the reconciliation under way is about
  };
  Server* server_of(TargetId target);
  const Server* server_of(TargetId target) const;
  bool good(const Group& group, TargetId target) const;  // up, and not restarted since it entered the set
  void plan();
  void plan_group(Group& group);
  void change(Group& group);  // a new epoch
  std::vector<DropOrder> drops_for(schema::HeartbeatRequest::Reader request);
  rpc::OutMessage join();
  rpc::OutMessage registered(schema::RegisterRequest::Reader request);
  rpc::OutMessage beaten(schema::HeartbeatRequest::Reader request);

  rpc::Runtime& runtime_;
  const ClusterId cluster_;
  const std::uint32_t slots_;
  const std::uint8_t min_replicas_;
  rpc::Identity identity_;
  std::unique_ptr<rpc::Server> server_;
  mutable std::mutex mutex_;
  std::map<ServerId, Server> servers_;
  std::map<std::uint32_t, Group> groups_;
  std::vector<SessionId> ended_;
  std::vector<PurgeOrder> purges_;
  std::uint64_t version_ = 1;
  std::uint64_t registrations_ = 0;
  bool reclaim_ = true;
  std::vector<DropOrder> extra_drops_;
  bool silent_ = false;
  Duration lease_ = std::chrono::seconds(10);
};

}  // namespace cairn::chunkserver
