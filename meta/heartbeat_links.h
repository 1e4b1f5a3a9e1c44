// The connections over which chunkservers register and send heartbeats: which one belongs to which server,
// pokes sent back over them, and the fast way to notice that a process is gone.
//
// When such a connection closes, the address is tried at once and then for a while: only an active refusal
// proves that the process ended (a chunkserver stops serving before it closes its listener); everything else
// is left to the lease. A newer connection of the same server ends the trying.
//
// Threading: watch() on any thread; the others on the executor thread. `gone` is called on the executor
// thread. Callbacks hold weak references, so the object may go while connections are still closing.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "meta/executor.h"
#include "store/base/ids.h"
#include "store/rpc/connection.h"

namespace cairn::meta {

class HeartbeatLinks : public std::enable_shared_from_this<HeartbeatLinks> {
 public:
  // `tasks` owns the background work and is closed before this object goes. `try_for`: how long an address is
  // tried.
  HeartbeatLinks(rpc::Runtime& runtime, rpc::Transport& transport, Executor& executor, rpc::TaskGroup& tasks,
                 Duration try_for, std::function<void(ServerId)> gone);

  // For each connection of a chunkserver, before its first request.
  void watch(const std::shared_ptr<rpc::Peer>& peer);
  // `peer` is now the connection of `server`.
  void bind(ServerId server, const std::shared_ptr<rpc::Peer>& peer, const std::string& address);
  bool connected(ServerId server) const;
  // "Heartbeat now": at most one call on its way to a server, and one more after it.
  void poke(ServerId server, std::uint64_t routing_version);
  void poke_all(std::uint64_t routing_version);
  void forget(ServerId server);
  // Nothing is started any more: connections that close later are let go.
  void stop() {
    links_.clear();
    stopped_ = true;
  }

 private:
  struct Link {
    ServerId server;
    std::shared_ptr<rpc::Peer> peer;
    std::string address;
    std::atomic<bool> replaced{false};
    bool trying = false;
    bool poking = false;
    bool poke_again = false;
    std::uint64_t routing_version = 0;
  };
  void closed(const rpc::Peer* peer);
  void start_trying(const std::shared_ptr<Link>& link);
  static rpc::Task<> try_address(std::shared_ptr<HeartbeatLinks> self, std::shared_ptr<Link> link);
  static rpc::Task<> send_poke(std::shared_ptr<HeartbeatLinks> self, std::shared_ptr<Link> link,
                               std::uint64_t version);

  rpc::Runtime& runtime_;
  rpc::Transport& transport_;
  Executor& executor_;
  rpc::TaskGroup& tasks_;
  const Duration try_for_;
  const std::function<void(ServerId)> gone_;
  std::map<ServerId, std::shared_ptr<Link>> links_;  // executor thread only
  bool stopped_ = false;                             // executor thread only
};

}  // namespace cairn::meta
