// All events of one runtime. A coroutine that waits for an event is owned by the event, and may itself own
// what the event is part of: when the loop ends, nobody would break that circle. So the runtime, as it goes,
// destroys the waiting coroutines of all its events (what waits for a socket or a timer is destroyed by
// Asio). Thread-safe.
#pragma once

#include <mutex>
#include <unordered_set>
#include <vector>

namespace cairn::rpc {

class EventRegistry {
 public:
  class Member {
   public:
    virtual void drop_waiters() = 0;

   protected:
    ~Member() = default;
  };
  void add(Member& member) {
    std::lock_guard lock(mutex_);
    members_.insert(&member);
  }
  void remove(Member& member) {
    std::lock_guard lock(mutex_);
    members_.erase(&member);
  }
  // Only when no io thread runs: dropping may destroy members, but only later, on the (ended) loop.
  void drop_waiters() {
    std::vector<Member*> members;
    {
      std::lock_guard lock(mutex_);
      members.assign(members_.begin(), members_.end());
    }
    for (Member* member : members) member->drop_waiters();
  }

 private:
  std::mutex mutex_;
  std::unordered_set<Member*> members_;  // guarded by mutex_
};

}  // namespace cairn::rpc
