// Which sessions have ended, and which writes of which sessions are in progress here.
//
// A fenced session must not change anything after its successor was granted: from end() on this server admits
// none of its writes, and drained() ends when the ones admitted before are committed or dropped. Hops of an
// ended session are still taken (a pending version has to reach the end of the chain); they count as in
// progress. Thread-safe; outlives its uses.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "store/base/ids.h"
#include "store/base/result.h"
#include "store/rpc/task.h"

namespace cairn::chunkserver {

class SessionFence {
 public:
  explicit SessionFence(rpc::Runtime& runtime) : calm_(runtime) {}

  class Use {
   public:
    Use() = default;
    Use(SessionFence* fence, SessionId session) : fence_(fence), session_(session) {}
    Use(Use&& other) noexcept : fence_(std::exchange(other.fence_, nullptr)), session_(other.session_) {}
    Use& operator=(Use&& other) noexcept {
      std::swap(fence_, other.fence_);
      std::swap(session_, other.session_);
      return *this;
    }
    ~Use() {
      if (fence_ != nullptr) fence_->leave(session_);
    }

   private:
    SessionFence* fence_ = nullptr;
    SessionId session_;
  };

  bool ended(SessionId session) const;
  Result<Use> admit(SessionId session);  // kSessionEnded
  Use hop(SessionId session);

  // Nothing of these, nor of any session below `below`, is admitted from now on.
  void end(const std::vector<SessionId>& sessions, SessionId below);
  // Ends when no write of an ended session is in progress. kTimeout, kCancelled.
  rpc::Task<Result<>> drained(Deadline deadline);

  // What a target remembers; `sequence`: fences up to this one are in it.
  std::string encode(std::uint64_t sequence) const;
  // Adds what a target remembers; returns its sequence.
  Result<std::uint64_t> restore(std::string_view bytes);

 private:
  bool ended_locked(SessionId session) const;
  bool calm_locked() const;
  void leave(SessionId session);

  mutable std::mutex mutex_;
  std::set<SessionId> ended_;                            // at or above below_; guarded by mutex_
  SessionId below_;                                      // guarded by mutex_
  std::unordered_map<SessionId, std::uint32_t> in_use_;  // guarded by mutex_
  rpc::Event calm_;                                      // set while no ended session is in use
};

}  // namespace cairn::chunkserver
