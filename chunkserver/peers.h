// The other chunkservers: one connection each for the chain and one for copying, so that bulk copies never
// stand in front of a small forwarded write. Addresses come from the routing table. Thread-safe.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "store/base/ids.h"
#include "store/rpc/connection.h"

namespace cairn::chunkserver {

class Peers {
 public:
  enum class Link : std::uint8_t { kChain = 0, kBulk = 1 };

  Peers(rpc::Runtime& runtime, rpc::Transport& transport, const rpc::Identity& identity)
      : runtime_(runtime), transport_(transport), identity_(identity) {}

  void set_address(ServerId server, const std::string& address);
  // kUnavailable also for a server that the routing table does not name.
  template <class M>
  rpc::Task<Result<rpc::Reply<typename M::ReplyBody>>> call(ServerId server, Link link,
                                                            rpc::OutMessage request, Deadline deadline) {
    auto channel = find(server, link);
    if (!channel)
      co_return fail(Code::kUnavailable, "no address is known for chunkserver " + to_string(server));
    auto reply = co_await channel->template call<M>(std::move(request), deadline);
    co_return reply;
  }
  void close();  // for good: outstanding calls end with kCancelled

 private:
  struct Peer {
    std::string address;
    std::array<std::shared_ptr<rpc::Channel>, 2> channels;
  };
  std::shared_ptr<rpc::Channel> find(ServerId server, Link link);

  rpc::Runtime& runtime_;
  rpc::Transport& transport_;
  const rpc::Identity& identity_;
  std::mutex mutex_;
  std::map<ServerId, Peer> peers_;  // guarded by mutex_
  bool closed_ = false;             // guarded by mutex_
};

}  // namespace cairn::chunkserver
