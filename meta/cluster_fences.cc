#include "meta/cluster_fences.h"

#include <algorithm>
#include <set>

namespace cairn::meta {

Result<> FenceLog::load(Txn& txn) {
  rows_.clear();
  Result<> outcome;
  auto read = [&](std::string_view key, std::string_view value) {
    auto sequence = number_of_key(key);
    if (!sequence) {
      outcome = fail(sequence.error());
    } else if (*sequence == 0) {
      auto floor = FenceFloorRecord::decode(value);
      if (!floor) {
        outcome = fail(floor.error());
      } else {
        ended_below_ = floor->ended_below;
        last_ = std::max(last_, floor->last);
      }
    } else if (auto record = FenceRecord::decode(value)) {
      rows_.push_back({*sequence, record->session});
      last_ = std::max(last_, *sequence);
    } else {
      outcome = fail(record.error());
    }
    return outcome.has_value();
  };
  TRYV(txn.scan(prefix_key(KeyPrefix::kFence), {}, read));
  return outcome;
}

std::uint64_t FenceLog::append(Txn& txn, SessionId session, std::function<void()> committed) {
  const std::uint64_t sequence = txn.next_id();
  txn.put(fence_key(sequence), FenceRecord{session}.encode());
  txn.on_commit([this, sequence, session, committed = std::move(committed)] {
    rows_.push_back({sequence, session});
    last_ = sequence;
    committed();
  });
  return sequence;
}

void FenceLog::set_ended_below(Txn& txn, SessionId lowest_living) {
  if (lowest_living <= ended_below_) return;
  std::set<std::uint64_t> covered;
  for (const Row& row : rows_)
    if (row.session < lowest_living) covered.insert(row.sequence);
  for (std::uint64_t sequence : covered) txn.erase(fence_key(sequence));
  txn.put(fence_key(0), FenceFloorRecord{lowest_living, last_}.encode());
  txn.on_commit([this, lowest_living, covered = std::move(covered)] {
    std::erase_if(rows_, [&](const Row& row) { return covered.contains(row.sequence); });
    ended_below_ = std::max(ended_below_, lowest_living);
  });
}

FenceLog::Delta FenceLog::since(std::uint64_t after, std::size_t max) const {
  Delta delta;
  delta.ended_below = ended_below_;
  delta.sequence = last_;
  for (auto row = std::ranges::upper_bound(rows_, after, {}, &Row::sequence); row != rows_.end(); ++row) {
    if (delta.ended.size() == max) {
      delta.sequence = std::prev(row)->sequence;
      break;
    }
    delta.ended.push_back(row->session);
  }
  return delta;
}

}  // namespace cairn::meta
