// Routing: which servers hold a chunk. A cached copy of the metadata server's table, fetched by changes, and
// one channel a chunkserver.
//
// The table is an immutable snapshot: take it once for one operation. It is refreshed when a chunkserver
// refuses an epoch or is gone, and in the background when a keepalive shows a newer version. Thread-safe.
// Owner: the client.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/session.h"

namespace cairn::client {

struct RoutedMember {
  TargetId target;
  ServerId server;
  bool in_sync = false;
};
struct RoutedGroup {
  GroupId id;
  Epoch epoch;
  std::vector<RoutedMember> members;  // chain order: head first
};
struct RoutedPool {
  PoolId id;
  std::uint32_t slots = 0;
  unsigned replicas = 0;
  unsigned min_replicas = 0;
  std::uint32_t chunk_size = 0;
};
struct RoutedServer {
  std::string address;
  schema::ServerState state = schema::ServerState::UP;
};

struct RoutingTable {
  std::uint64_t version = 0;
  std::map<PoolId, RoutedPool> pools;
  std::unordered_map<ServerId, RoutedServer> servers;
  std::unordered_map<GroupId, std::shared_ptr<const RoutedGroup>> groups;

  // kUnavailable names what the table lacks (refresh it).
  Result<std::shared_ptr<const RoutedGroup>> group_of(PoolId pool, ChunkId chunk) const;
  // The table after a change was applied.
  RoutingTable with(schema::Routing::Reader change) const;
};

class Routing {
 public:
  Routing(rpc::Runtime& runtime, rpc::Transport& transport, Session& session);
  ~Routing();

  std::shared_ptr<const RoutingTable> table() const;
  // Fetches what changed, unless another caller did so since `seen` was taken. Concurrent callers share one
  // fetch.
  rpc::Task<Result<>> refresh(std::shared_ptr<const RoutingTable> seen, Deadline deadline);
  // A version that somebody else saw: fetch it in the background.
  void note_version(std::uint64_t version);
  // kUnavailable: the table does not name the server.
  Result<std::shared_ptr<rpc::Channel>> channel(const RoutingTable& table, ServerId server);
  void close();

 private:
  rpc::Task<> refresh_in_background(std::uint64_t version);

  rpc::Runtime& runtime_;
  rpc::Transport& transport_;
  Session& session_;
  rpc::Identity identity_;
  rpc::TaskGroup tasks_;
  Budget refreshing_;

  mutable std::mutex mutex_;
  std::shared_ptr<const RoutingTable> table_;                             // guarded by mutex_
  std::unordered_map<ServerId, std::shared_ptr<rpc::Channel>> channels_;  // guarded by mutex_
  bool background_ = false;                                               // guarded by mutex_
};

}  // namespace cairn::client
