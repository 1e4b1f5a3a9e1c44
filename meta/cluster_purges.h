// The durable queue of data ids whose chunks may go. Rows stay in the store (a tree of a million files may be
// removed at once); in memory there are only the numbers between which they lie.
//
// A purge is shown to chunkservers only when its row is *synced*: a removal that a power cut took back would
// otherwise leave a living file without its bytes. Rows are trimmed when every server that is not forgotten
// has done them on every target.
//
// Executor thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "meta/cluster_records.h"
#include "meta/txn.h"

namespace cairn::meta {

class PurgeQueue {
 public:
  struct Row {
    std::uint64_t sequence = 0;
    PurgeRecord order;
  };

  Result<> load(Txn& txn);
  void append(Txn& txn, const PurgeRecord& order, std::function<void()> committed);
  std::uint64_t last() const { return last_; }        // accepted
  std::uint64_t visible() const { return visible_; }  // synced
  void set_visible(std::uint64_t sequence) { visible_ = std::max(visible_, sequence); }
  // At most `max` visible rows after `after`, in order.
  Result<std::vector<Row>> since(Txn& txn, std::uint64_t after, std::size_t max) const;
  // Erases at most `max` rows up to `done`. True if there may be more.
  Result<bool> trim(Txn& txn, std::uint64_t done, std::size_t max);
  std::uint64_t trimmed() const { return trimmed_; }
  bool empty() const { return last_ <= trimmed_; }

 private:
  std::uint64_t last_ = 0;
  std::uint64_t visible_ = 0;
  std::uint64_t trimmed_ = 0;  // no row at or below it
};

}  // namespace cairn::meta
