#include "meta/lease_rows.h"

#include <algorithm>

#include "meta/keys.h"

namespace cairn::meta {

Result<std::optional<ExclusiveRecord>> find_exclusive(Txn& txn, InodeId inode) {
  TRY(auto bytes, txn.get(keys::exclusive(inode)));
  if (!bytes) return std::nullopt;
  return ExclusiveRecord::decode(*bytes);
}

Result<LeaseGeneration> take_exclusive(Txn& txn, SessionId session, InodeId inode) {
  TRY(auto held, find_exclusive(txn, inode));
  if (held) {
    if (held->session == session) return held->generation;
    return fail(Code::kInternal,
                "inode " + to_string(inode) + " is still held by session " + to_string(held->session));
  }
  const LeaseGeneration generation(txn.next_id());
  const std::string record = ExclusiveRecord{session, generation}.encode();
  txn.put(keys::exclusive(inode), record);
  txn.put(keys::exclusive_of(session, inode), record);
  return generation;
}

Result<> check_exclusive(Txn& txn, SessionId session, InodeId inode, LeaseGeneration generation) {
  TRY(auto held, find_exclusive(txn, inode));
  if (held && held->session == session && (!generation.valid() || held->generation == generation)) return {};
  return fail(Code::kLeaseLost, "session " + to_string(session) + " does not hold inode " + to_string(inode) +
                                    " exclusively any more");
}

Result<> drop_exclusive(Txn& txn, InodeId inode) {
  TRY(auto held, find_exclusive(txn, inode));
  if (!held) return {};
  txn.erase(keys::exclusive(inode));
  txn.erase(keys::exclusive_of(held->session, inode));
  return {};
}

namespace {
Result<std::uint64_t> count_at(Txn& txn, const std::string& key) {
  TRY(auto bytes, txn.get(key));
  if (!bytes) return 0;
  TRY(auto record, CountRecord::decode(*bytes));
  return record.count;
}
void set_count(Txn& txn, const std::string& key, std::uint64_t count) {
  if (count == 0) {
    txn.erase(key);
  } else {
    txn.put(key, CountRecord{count}.encode());
  }
}
}  // namespace

Result<> add_open(Txn& txn, SessionId session, InodeId inode) {
  TRY(auto here, count_at(txn, keys::open(session, inode)));
  TRY(auto all, count_at(txn, keys::opens_all(inode)));
  set_count(txn, keys::open(session, inode), here + 1);
  set_count(txn, keys::opens_all(inode), all + 1);
  return {};
}

Result<> remove_opens(Txn& txn, SessionId session, InodeId inode, std::uint64_t count) {
  TRY(auto here, count_at(txn, keys::open(session, inode)));
  if (here == 0) return {};
  TRY(auto all, count_at(txn, keys::opens_all(inode)));
  count = std::min({count, here, all});
  set_count(txn, keys::open(session, inode), here - count);
  set_count(txn, keys::opens_all(inode), all - count);
  return {};
}

Result<Opens> count_opens(Txn& txn, SessionId session, InodeId inode) {
  TRY(auto here, count_at(txn, keys::open(session, inode)));
  TRY(auto all, count_at(txn, keys::opens_all(inode)));
  return Opens{here, all};
}

Result<bool> is_open(Txn& txn, InodeId inode) {
  TRY(auto all, count_at(txn, keys::opens_all(inode)));
  return all > 0;
}

}  // namespace cairn::meta
