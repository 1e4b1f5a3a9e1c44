#include "meta/heartbeat_links.h"

#include "store/base/log.h"

namespace cairn::meta {
namespace {

constexpr Duration kConnectTimeout = std::chrono::milliseconds(500);
constexpr Duration kFirstPause =
    std::chrono::milliseconds(20);  // a killed process's listener may close after its connections
constexpr Duration kPauseMax = std::chrono::milliseconds(500);
constexpr Duration kPokeTimeout = std::chrono::seconds(2);

}  // namespace

HeartbeatLinks::HeartbeatLinks(rpc::Runtime& runtime, rpc::Transport& transport, Executor& executor,
                               rpc::TaskGroup& tasks, Duration try_for, std::function<void(ServerId)> gone)
    : runtime_(runtime),
      transport_(transport),
      executor_(executor),
      tasks_(tasks),
      try_for_(try_for),
      gone_(std::move(gone)) {}

void HeartbeatLinks::watch(const std::shared_ptr<rpc::Peer>& peer) {
  peer->on_close([weak = weak_from_this(), key = peer.get()](const Error&) {
    auto self = weak.lock();
    if (!self) return;
    self->executor_.post([weak, key] {
      if (auto links = weak.lock()) links->closed(key);
    });
  });
}

void HeartbeatLinks::bind(ServerId server, const std::shared_ptr<rpc::Peer>& peer,
                          const std::string& address) {
  if (stopped_) return;
  std::shared_ptr<Link>& link = links_[server];
  if (link && link->peer == peer) {
    link->address = address;
    return;
  }
  if (link) link->replaced = true;
  link = std::make_shared<Link>();
  link->server = server;
  link->peer = peer;
  link->address = address;
  if (!peer->connected()) start_trying(link);  // it closed before we knew whose it was
}

bool HeartbeatLinks::connected(ServerId server) const {
  auto found = links_.find(server);
  return found != links_.end() && found->second->peer->connected();
}

void HeartbeatLinks::forget(ServerId server) {
  auto found = links_.find(server);
  if (found == links_.end()) return;
  found->second->replaced = true;
  links_.erase(found);
}

void HeartbeatLinks::closed(const rpc::Peer* peer) {
  for (auto& [server, link] : links_)
    if (link->peer.get() == peer) start_trying(link);
}

void HeartbeatLinks::start_trying(const std::shared_ptr<Link>& link) {
  if (link->trying) return;
  link->trying = true;
  log_info("heartbeat_connection_closed", "server={} address={}", to_string(link->server), link->address);
  tasks_.spawn(runtime_.make_strand(), try_address(shared_from_this(), link));
}

rpc::Task<> HeartbeatLinks::try_address(std::shared_ptr<HeartbeatLinks> self, std::shared_ptr<Link> link) {
  const std::string address = link->address;
  const TimePoint until = self->runtime_.clock().now() + self->try_for_;
  Duration pause = kFirstPause;
  while (!link->replaced && self->runtime_.clock().now() < until) {
    const Deadline deadline = Deadline::after(self->runtime_.clock(), kConnectTimeout);
    const bool refused =
        co_await rpc::connect_is_refused(self->runtime_, self->transport_, address, deadline);
    if (refused) {
      self->executor_.post([self, link] {
        if (link->replaced) return;
        log_warn("server_process_gone", "server={} address={}", to_string(link->server), link->address);
        self->gone_(link->server);
      });
      co_return;
    }
    auto slept = co_await rpc::sleep_for(self->runtime_, pause);
    if (!slept) co_return;  // stopping
    pause = std::min(pause * 2, kPauseMax);
  }
}

void HeartbeatLinks::poke(ServerId server, std::uint64_t routing_version) {
  auto found = links_.find(server);
  if (found == links_.end() || !found->second->peer->connected()) return;
  const std::shared_ptr<Link>& link = found->second;
  link->routing_version = routing_version;
  if (link->poking) {
    link->poke_again = true;
    return;
  }
  link->poking = true;
  tasks_.spawn(runtime_.make_strand(), send_poke(shared_from_this(), link, routing_version));
}

void HeartbeatLinks::poke_all(std::uint64_t routing_version) {
  for (const auto& [server, link] : links_) poke(server, routing_version);
}

rpc::Task<> HeartbeatLinks::send_poke(std::shared_ptr<HeartbeatLinks> self, std::shared_ptr<Link> link,
                                      std::uint64_t version) {
  rpc::OutMessage message;
  message.body<schema::PokeRequest>().setRoutingVersion(version);
  const Deadline deadline = Deadline::after(self->runtime_.clock(), kPokeTimeout);
  auto reply = co_await link->peer->call<rpc::method::Poke>(std::move(message), deadline);
  if (!reply)
    log_debug("poke_failed", "server={} reason={}", to_string(link->server),
              log_quote(reply.error().message()));
  self->executor_.post([self, link] {
    link->poking = false;
    if (!link->poke_again || link->replaced) return;
    link->poke_again = false;
    self->poke(link->server, link->routing_version);
  });
}

}  // namespace cairn::meta
