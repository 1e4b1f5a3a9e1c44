#include "meta/quota.h"

#include <algorithm>

#include "meta/keys.h"
#include "meta/lease_rows.h"

namespace cairn::meta {

namespace {

// A writer is given ahead what it has got already, within these limits, so that it asks seldom, yet little of
// what is left lies with writers that will not use it.
constexpr std::uint64_t kAheadMax = 4 << 20;
constexpr std::uint64_t kAheadPart = 16;

Result<std::uint64_t> reserved_bytes(Txn& txn, InodeId id, const InodeRecord& inode) {
  if (!(inode.flags & InodeRecord::kHasReserved)) return 0;
  TRY(auto bytes, txn.get(keys::reserved(id)));
  if (!bytes) return fail(Code::kCorrupt, "inode " + to_string(id) + " has no record of its reservation");
  TRY(auto record, CountRecord::decode(*bytes));
  return record.count;
}

void set_reserved(Txn& txn, InodeId id, InodeRecord& inode, std::uint64_t bytes) {
  if (bytes == 0) {
    forget_reserved(txn, id, inode);
    return;
  }
  txn.put(keys::reserved(id), CountRecord{bytes}.encode());
  inode.flags |= InodeRecord::kHasReserved;
}

}  // namespace

Result<std::optional<std::uint64_t>> room_in(Txn& txn, InodeId directory) {
  std::optional<std::uint64_t> room;
  for (InodeId at = directory; at.valid();) {
    TRY(auto record, load_directory(txn, at));
    if (record.bytes_max != 0) {
      const auto used = static_cast<std::uint64_t>(std::max<std::int64_t>(record.bytes, 0));
      room = std::min(room.value_or(UINT64_MAX), record.bytes_max - std::min(record.bytes_max, used));
    }
    at = record.parent;
  }
  return room;
}

Result<std::int64_t> charged_bytes(Txn& txn, InodeId id, const InodeRecord& inode) {
  TRY(const std::uint64_t reserved, reserved_bytes(txn, id, inode));
  return static_cast<std::int64_t>(inode.bytes + reserved);
}

Result<Allowance> allowance(Txn& txn, InodeId id, const InodeRecord& inode) {
  if (!inode.is_regular()) return Allowance{};
  TRY(const auto room, room_in(txn, inode.parent));
  if (!room) return Allowance{};
  TRY(const std::uint64_t reserved, reserved_bytes(txn, id, inode));
  return Allowance{true, inode.bytes + reserved};
}

Result<Allowance> extend_allowance(Txn& txn, InodeId id, InodeRecord& inode, std::uint64_t bytes) {
  TRY(const auto room, room_in(txn, inode.parent));
  if (!room) return Allowance{};
  TRY(const std::uint64_t reserved, reserved_bytes(txn, id, inode));
  const std::uint64_t has = inode.bytes + reserved;
  if (bytes <= has) return Allowance{true, has};
  const std::uint64_t more = bytes - has;
  if (more <= *room) {
    const std::uint64_t ahead = std::min({has, kAheadMax, (*room - more) / kAheadPart});
    TRYV(add_usage(txn, inode.parent, static_cast<std::int64_t>(more + ahead), 0, Limits::kEnforced));
    set_reserved(txn, id, inode, reserved + more + ahead);
    return Allowance{true, bytes + ahead};
  }
  return fail(Code::kQuotaExceeded, "inode " + to_string(id) + " wants " + std::to_string(more) +
                                        " bytes more, and the quota of a directory above it has " +
                                        std::to_string(*room) + " left");
}

Result<> report_bytes(Txn& txn, InodeId id, InodeRecord& inode, std::uint64_t bytes,
                      std::optional<std::uint64_t> bytes_max) {
  TRY(const std::uint64_t reserved, reserved_bytes(txn, id, inode));
  const std::uint64_t had = inode.bytes + reserved;
  // What was not spent stays reserved, unless the holder says that it does not need it.
  std::uint64_t total = reserved == 0 ? bytes : std::max(bytes, had);
  if (bytes_max) total = std::max(bytes, std::min(total, *bytes_max));
  if (inode.flags & InodeRecord::kTrashed)
    TRYV(add_trash_counters(txn, 0, static_cast<std::int64_t>(bytes - inode.bytes)));
  inode.bytes = bytes;
  if (total - bytes != reserved) set_reserved(txn, id, inode, total - bytes);
  return add_usage(txn, inode.parent, static_cast<std::int64_t>(total) - static_cast<std::int64_t>(had), 0);
}

void forget_reserved(Txn& txn, InodeId id, InodeRecord& inode) {
  if (!(inode.flags & InodeRecord::kHasReserved)) return;
  txn.erase(keys::reserved(id));
  inode.flags &= static_cast<std::uint8_t>(~InodeRecord::kHasReserved);
}

Result<> release_exclusive(Txn& txn, InodeId id) {
  TRYV(drop_exclusive(txn, id));
  TRY(auto inode, find_inode(txn, id));
  if (!inode || !(inode->flags & InodeRecord::kHasReserved)) return {};
  TRY(const std::uint64_t reserved, reserved_bytes(txn, id, *inode));
  TRYV(add_usage(txn, inode->parent, -static_cast<std::int64_t>(reserved), 0));
  forget_reserved(txn, id, *inode);
  store_inode(txn, id, *inode);
  return {};
}

}  // namespace cairn::meta
