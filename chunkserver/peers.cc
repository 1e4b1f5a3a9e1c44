#include "chunkserver/peers.h"

#include <vector>

namespace cairn::chunkserver {

void Peers::set_address(ServerId server, const std::string& address) {
  std::array<std::shared_ptr<rpc::Channel>, 2> old;
  {
    std::lock_guard lock(mutex_);
    Peer& peer = peers_[server];
    if (peer.address == address) return;
    old.swap(peer.channels);
    peer.address = address;
  }
  for (const auto& channel : old)
    if (channel) channel->close();
}

std::shared_ptr<rpc::Channel> Peers::find(ServerId server, Link link) {
  std::lock_guard lock(mutex_);
  auto at = peers_.find(server);
  if (closed_ || at == peers_.end() || at->second.address.empty()) return nullptr;
  auto& channel = at->second.channels[static_cast<std::size_t>(link)];
  if (!channel) channel = rpc::Channel::create(runtime_, transport_, at->second.address, identity_);
  return channel;
}

void Peers::close() {
  std::vector<std::shared_ptr<rpc::Channel>> all;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [id, peer] : peers_)
      for (auto& channel : peer.channels)
        if (channel) all.push_back(std::move(channel));
  }
  for (const auto& channel : all) channel->close();
}

}  // namespace cairn::chunkserver
