#include "meta/sessions.h"

#include <algorithm>

namespace cairn::meta {

namespace {
std::unexpected<Error> ended(SessionId id) {
  return fail(Code::kSessionEnded, "session " + to_string(id) + " has ended: open a new one");
}
}  // namespace

void SessionTable::add(SessionId id, std::string name, State state, std::shared_ptr<rpc::Peer> peer) {
  std::lock_guard lock(mutex_);
  sessions_.insert_or_assign(id, Entry{std::move(name), state, clock_.now(), std::move(peer)});
}

Result<> SessionTable::touch(SessionId id) {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  if (it == sessions_.end() || it->second.state == State::kEnding) return ended(id);
  it->second.heard = clock_.now();
  return {};
}

Result<SessionTable::State> SessionTable::attach(SessionId id, std::shared_ptr<rpc::Peer> peer) {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  if (it == sessions_.end() || it->second.state == State::kEnding) return ended(id);
  it->second.heard = clock_.now();
  it->second.peer = std::move(peer);
  return it->second.state;
}

std::shared_ptr<rpc::Peer> SessionTable::peer(SessionId id) const {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  return it == sessions_.end() ? nullptr : it->second.peer;
}

std::string SessionTable::name(SessionId id) const {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  return it == sessions_.end() ? std::string() : it->second.name;
}

void SessionTable::reasserted(SessionId id) {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  if (it != sessions_.end() && it->second.state == State::kRestored) it->second.state = State::kAlive;
}

bool SessionTable::any_restored() const {
  std::lock_guard lock(mutex_);
  return std::any_of(sessions_.begin(), sessions_.end(),
                     [](const auto& entry) { return entry.second.state == State::kRestored; });
}

bool SessionTable::begin_end(SessionId id) {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  if (it == sessions_.end() || it->second.state == State::kEnding) return false;
  it->second.state = State::kEnding;
  it->second.peer.reset();
  return true;
}

TimePoint SessionTable::lease_over(SessionId id) const {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  return it == sessions_.end() ? clock_.now() : it->second.heard + lease_;
}

std::vector<SessionId> SessionTable::expire() {
  std::lock_guard lock(mutex_);
  const TimePoint now = clock_.now();
  std::vector<SessionId> out;
  for (auto& [id, entry] : sessions_) {
    if (entry.state == State::kEnding || now - entry.heard <= lease_) continue;
    entry.state = State::kEnding;
    entry.peer.reset();
    out.push_back(id);
  }
  return out;
}

void SessionTable::erase(SessionId id) {
  std::lock_guard lock(mutex_);
  sessions_.erase(id);
}

SessionId SessionTable::lowest() const {
  std::lock_guard lock(mutex_);
  return sessions_.empty() ? SessionId{} : sessions_.begin()->first;
}

std::size_t SessionTable::alive() const {
  std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::count_if(sessions_.begin(), sessions_.end(), [](const auto& entry) {
    return entry.second.state != State::kEnding;
  }));
}

bool SessionTable::is_alive(SessionId id) const {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(id);
  return it != sessions_.end() && it->second.state != State::kEnding;
}

std::vector<SessionTable::Info> SessionTable::list() const {
  std::lock_guard lock(mutex_);
  std::vector<Info> out;
  for (const auto& [id, entry] : sessions_) {
    out.push_back(
        {id, entry.name, entry.state, clock_.now() - entry.heard, entry.peer ? entry.peer->address() : ""});
  }
  return out;
}

}  // namespace cairn::meta
