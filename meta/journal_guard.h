// JournalGuard: notices metadata that went back in time (an old copy of it was put back, or a disk lost
// writes that it had confirmed). Chunkservers remember the journal position that the last heartbeat told
// them, and say it when they register; only synced positions are told, so no position remembered from an
// earlier run can lie beyond the one at which this run began.
//
// A position remembered from this very run lies beyond that too, and the entries of this run soon pass what
// was lost. So every server has a bound of its own: the position at which the first run began in which it has
// not registered yet. It is stored, and goes when the server registers: neither new entries nor another start
// or era disarm the guard.
//
// Executor thread only.
#pragma once

#include <map>
#include <set>
#include <string>

#include "meta/cluster_state.h"
#include "meta/txn.h"

namespace cairn::meta {

class JournalGuard {
 public:
  // In the first operation of a run. `began`: what the store held before anything was written.
  Result<> load(Txn& txn, JournalPosition began, const std::map<ServerId, ClusterServer>& servers);
  // kNeedsOperator: `server` remembers more than there is.
  Result<> check(ServerId server, JournalPosition remembered, JournalPosition synced) const;
  // It registered: what it remembers from here on is of this run.
  void registered(Txn& txn, ServerId server);

 private:
  JournalPosition began_;
  std::map<ServerId, JournalPosition> bounds_;
  std::set<ServerId> seen_;  // registered in this run; forgotten ones too
};

// Row of the store that says why nothing may be served from it any more. open_store() refuses with its text.
std::string went_back_key();

}  // namespace cairn::meta
