// ReplyTable: answers to mutations, kept until the client waits for them no more, so that a retried request
// is answered and not done a second time. Rows (KeyPrefix::kReply) are written in the batch of their
// mutation; the numbers that exist are also in memory, so that forgetting needs no scan. Executor thread
// only.
#pragma once

#include <set>
#include <string>
#include <unordered_map>

#include "meta/txn.h"

namespace cairn::meta {

struct MutationId {
  SessionId session;
  std::uint64_t sequence = 0;
  std::uint64_t awaited = 0;  // the client waits for no answer below
};

class ReplyTable {
 public:
  static constexpr std::size_t kPerSessionMax = 8192;

  // The stored answer, if this request was done before. Also forgets what is not awaited any more.
  // kInvalidArgument: not awaited itself, it must not be done (again). kOverloaded: too many answers wait.
  Result<std::optional<std::string>> begin(Txn& txn, const MutationId& id);
  // In the transaction that does it; counts when the operation succeeds (call last).
  void store(Txn& txn, const MutationId& id, std::string_view reply);
  void load(SessionId session, std::uint64_t sequence);       // at start
  void drop(SessionId session) { sessions_.erase(session); }  // rows are erased by who ends the session

 private:
  struct Session {
    std::set<std::uint64_t> stored;
    std::uint64_t awaited = 0;
  };
  std::unordered_map<SessionId, Session> sessions_;
};

}  // namespace cairn::meta
