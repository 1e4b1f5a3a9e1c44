// The list of ended sessions that chunkservers must refuse: a log by sequence, of which each server reports
// how far it got.
//
// Sequences are ids of the metadata server, so none comes back with another meaning after a restart or a
// power cut. A row is journaled with the operation that ended the session and shown to chunkservers when that
// operation is accepted (a power cut of the metadata server's machine ends all sessions anyway). Rows below
// the lowest living session are dropped: the floor covers them.
//
// Executor thread only. A fence becomes visible in rows() when its operation commits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "meta/cluster_records.h"
#include "meta/txn.h"

namespace cairn::meta {

class FenceLog {
 public:
  struct Row {
    std::uint64_t sequence = 0;
    SessionId session;
  };
  struct Delta {
    std::uint64_t sequence = 0;  // reached after applying `ended`
    std::vector<SessionId> ended;
    SessionId ended_below;
  };

  Result<> load(Txn& txn);
  // Stages a row; `committed` runs (executor thread) after it became visible.
  std::uint64_t append(Txn& txn, SessionId session, std::function<void()> committed);
  void set_ended_below(Txn& txn, SessionId lowest_living);
  // What a server that applied all up to `after` lacks; at most `max` sessions (the rest with its next
  // heartbeat).
  Delta since(std::uint64_t after, std::size_t max) const;
  std::uint64_t last() const { return last_; }

 private:
  std::vector<Row> rows_;  // by sequence
  SessionId ended_below_;
  std::uint64_t last_ = 0;
};

}  // namespace cairn::meta
