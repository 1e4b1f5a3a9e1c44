#include "meta/cluster_purges.h"

#include <algorithm>

namespace cairn::meta {

Result<> PurgeQueue::load(Txn& txn) {
  last_ = visible_ = trimmed_ = 0;
  bool first = true;
  Result<> outcome;
  auto read = [&](std::string_view key, std::string_view) {
    auto sequence = number_of_key(key);
    if (!sequence) {
      outcome = fail(sequence.error());
      return false;
    }
    if (first) trimmed_ = *sequence - 1;
    first = false;
    last_ = *sequence;
    return true;
  };
  TRYV(txn.scan(prefix_key(KeyPrefix::kPurge), {}, read));
  return outcome;
}

void PurgeQueue::append(Txn& txn, const PurgeRecord& order, std::function<void()> committed) {
  const std::uint64_t sequence = txn.next_id();
  txn.put(purge_key(sequence), order.encode());
  txn.on_commit([this, sequence, committed = std::move(committed)] {
    last_ = sequence;
    committed();
  });
}

Result<std::vector<PurgeQueue::Row>> PurgeQueue::since(Txn& txn, std::uint64_t after, std::size_t max) const {
  std::vector<Row> rows;
  after = std::max(after, trimmed_);
  if (after >= visible_) return rows;
  Result<> outcome;
  auto read = [&](std::string_view key, std::string_view value) {
    auto sequence = number_of_key(key);
    if (!sequence) {
      outcome = fail(sequence.error());
      return false;
    }
    if (*sequence > visible_ || rows.size() == max) return false;
    auto order = PurgeRecord::decode(value);
    if (!order) {
      outcome = fail(order.error());
      return false;
    }
    rows.push_back({*sequence, *order});
    return true;
  };
  TRYV(txn.scan(prefix_key(KeyPrefix::kPurge), purge_key(after + 1), read));
  TRYV(std::move(outcome));
  return rows;
}

Result<bool> PurgeQueue::trim(Txn& txn, std::uint64_t done, std::size_t max) {
  done = std::min(done, visible_);
  if (done <= trimmed_) return false;
  std::vector<std::string> keys;
  std::uint64_t reached = done;
  bool more = false;
  Result<> outcome;
  auto read = [&](std::string_view key, std::string_view) {
    auto sequence = number_of_key(key);
    if (!sequence) {
      outcome = fail(sequence.error());
      return false;
    }
    if (*sequence > done) return false;
    if (keys.size() == max) {
      reached = *sequence - 1;
      more = true;
      return false;
    }
    keys.emplace_back(key);
    return true;
  };
  TRYV(txn.scan(prefix_key(KeyPrefix::kPurge), purge_key(trimmed_ + 1), read));
  TRYV(std::move(outcome));
  for (const std::string& key : keys) txn.erase(key);
  trimmed_ = reached;
  return more;
}

}  // namespace cairn::meta
