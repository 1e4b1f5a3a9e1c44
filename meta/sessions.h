// SessionTable: which sessions live, when each was last heard, and over which connection it can be called
// back. Thread-safe: renewals are answered on io threads, also while the executor is busy. A session ends
// exactly once, and once it has begun to end no renewal of it succeeds any more: so a client never believes
// in a lease that the server gave away.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "store/base/clock.h"
#include "store/base/ids.h"
#include "store/base/result.h"
#include "store/rpc/connection.h"

namespace cairn::meta {

class SessionTable {
 public:
  enum class State {
    kAlive,
    kRestored,  // known from before the restart, has not named what it holds yet
    kEnding,    // ended; what it held is being taken back
  };
  SessionTable(const Clock& clock, Duration lease) : clock_(clock), lease_(lease) {}

  void add(SessionId id, std::string name, State state, std::shared_ptr<rpc::Peer> peer);
  // The session is heard of now. kSessionEnded if it is not alive.
  Result<> touch(SessionId id);
  // touch(), and calls back go to `peer` from now on.
  Result<State> attach(SessionId id, std::shared_ptr<rpc::Peer> peer);
  std::shared_ptr<rpc::Peer> peer(SessionId id) const;  // may be null
  std::string name(SessionId id) const;
  void reasserted(SessionId id);  // kRestored -> kAlive
  bool any_restored() const;
  // Marks the session as ending: true for the one caller who did it.
  bool begin_end(SessionId id);
  // The same for every session silent for longer than the lease.
  std::vector<SessionId> expire();
  // From then on its client does not believe in its lease any more, if it hears nothing of the server.
  TimePoint lease_over(SessionId id) const;
  void erase(SessionId id);
  SessionId lowest() const;  // none: no session
  std::size_t alive() const;
  bool is_alive(SessionId id) const;
  struct Info {
    SessionId id;
    std::string name;
    State state;
    Duration silent;
    std::string address;
  };
  std::vector<Info> list() const;

 private:
  struct Entry {
    std::string name;
    State state = State::kAlive;
    TimePoint heard;
    std::shared_ptr<rpc::Peer> peer;
  };
  const Clock& clock_;
  const Duration lease_;
  mutable std::mutex mutex_;
  std::map<SessionId, Entry> sessions_;
};

}  // namespace cairn::meta
