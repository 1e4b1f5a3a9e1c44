// The connection to the metadata server: registers, sends heartbeats, keeps the lease, and hands over what is
// ordered.
//
// One heartbeat is under way at a time; heartbeat_now() sends the next at once (also after a Poke). When the
// connection ends it reconnects with backoff, to the next address, and registers again; after a refusal that
// never heals it ends and tells the host. Lease: see
// ServerLease; a reply extends it only after all that it ordered is in force here, or a server that was away
// for long would serve old groups for a moment. Thread-safe. start() once; stop() ends the task and closes
// the connection.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chunkserver/heartbeat.h"
#include "chunkserver/server_lease.h"
#include "store/rpc/connection.h"

namespace cairn::chunkserver {

// What the link asks of the server.
class MetaLinkHost {
 public:
  virtual ~MetaLinkHost() = default;
  virtual rpc::OutMessage register_request() = 0;
  virtual rpc::OutMessage heartbeat_request() = 0;
  // On return fences and routing are in force. An error: the heartbeat counts as not answered.
  virtual rpc::Task<Result<>> obey(Orders orders) = 0;
  // Registration was refused with an error that waiting does not mend (see never_heals); the link has ended.
  virtual void refused_for_good(const Error& why) = 0;
};

// Refusals of a registration after which trying again is only noise, because this process holds the disks of
// another cluster (kWrongCluster) or of a server that the operator had forgotten (kNotFound). All others may
// pass while we wait: another program version is upgraded, an operator restores the right metadata.
bool never_heals(const Error& refusal);

class MetaLink final : public rpc::Service {
 public:
  MetaLink(rpc::Runtime& runtime, rpc::Transport& transport, const rpc::Identity& identity,
           std::vector<std::string> addresses, ServerLease& lease, MetaLinkHost& host);

  void start(rpc::TaskGroup& tasks);
  void heartbeat_now();
  // Says goodbye by closing the connection. Call when nothing is served any more.
  void close();

  rpc::Task<Result<rpc::OutMessage>> handle(rpc::Request request) override;  // Poke

 private:
  rpc::Task<> run();
  rpc::Task<Result<>> serve_connection(std::shared_ptr<rpc::Channel> channel);
  rpc::Task<Result<Duration>> introduce(std::shared_ptr<rpc::Peer> peer);
  rpc::Task<Result<>> beat(std::shared_ptr<rpc::Peer> peer);

  rpc::Runtime& runtime_;
  rpc::Transport& transport_;
  const rpc::Identity& identity_;
  const std::vector<std::string> addresses_;
  ServerLease& lease_;
  MetaLinkHost& host_;
  rpc::Event wake_;
  std::mutex mutex_;
  std::shared_ptr<rpc::Channel> channel_;  // guarded by mutex_
  bool closed_ = false;                    // guarded by mutex_
};

}  // namespace cairn::chunkserver
