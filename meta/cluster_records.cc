#include "meta/cluster_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>

#include "store/base/bytes.h"

namespace cairn::meta {
namespace {

constexpr std::uint8_t kClusterRecordVersion = 1;
constexpr std::size_t kMembersMax = 64;  // more is damage, not a group
constexpr std::size_t kListMax = 4096;

std::string begin_record() {
  return std::string(1, static_cast<char>(kClusterRecordVersion));
}

// Reads the version byte; the caller checks the rest with end_record().
Result<ByteReader> open_record(std::string_view bytes, std::string_view what) {
  ByteReader reader(bytes);
  const std::uint8_t version = reader.u8();
  if (!reader.ok()) return fail(Code::kCorrupt, fmt::format("{} record is empty", what));
  if (version > kClusterRecordVersion)
    return fail(Code::kVersionMismatch,
                fmt::format("{} record has format {}; this program knows up to {}: run a newer one", what,
                            version, kClusterRecordVersion));
  if (version != kClusterRecordVersion)
    return fail(Code::kCorrupt, fmt::format("{} record has format 0", what));
  return reader;
}

Result<> end_record(const ByteReader& reader, bool plausible, std::string_view what) {
  if (!reader.done()) return fail(Code::kCorrupt, fmt::format("{} record has a wrong length", what));
  if (!plausible) return fail(Code::kCorrupt, fmt::format("{} record holds values that cannot be", what));
  return {};
}

// A count of elements that take at least `width` bytes each: never trusted beyond what is there.
bool read_count(ByteReader& reader, std::size_t width, std::size_t max, std::size_t& count) {
  count = reader.u32();
  if (reader.ok() && count <= max && count * width <= reader.left()) return true;
  count = 0;
  return false;
}

bool read_flag(ByteReader& reader, bool& to) {
  const std::uint8_t value = reader.u8();
  to = value == 1;
  return value <= 1;
}

}  // namespace

std::string ServerRecord::encode() const {
  std::string out = begin_record();
  ByteWriter w(out);
  w.u64(id.value());
  w.text(address);
  w.u32(static_cast<std::uint32_t>(labels.size()));
  for (const std::string& label : labels) w.text(label);
  w.u8(draining);
  w.u8(registered);
  w.u64(boot);
  w.u64(purges_done);
  return out;
}

Result<ServerRecord> ServerRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "server"));
  ServerRecord record;
  record.id = ServerId(r.u64());
  record.address = r.text();
  std::size_t labels = 0;
  bool good = read_count(r, 4, kListMax, labels);
  for (std::size_t i = 0; i < labels; ++i) record.labels.emplace_back(r.text());
  good = read_flag(r, record.draining) && good;
  good = read_flag(r, record.registered) && good;
  record.boot = r.u64();
  record.purges_done = r.u64();
  TRYV(end_record(r, good && record.id.valid(), "server"));
  return record;
}

std::string TargetRecord::encode() const {
  std::string out = begin_record();
  ByteWriter w(out);
  w.u64(id.value());
  w.u64(server.value());
  w.u64(capacity_bytes);
  w.u8(lost);
  w.u8(retired);
  return out;
}

Result<TargetRecord> TargetRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "target"));
  TargetRecord record;
  record.id = TargetId(r.u64());
  record.server = ServerId(r.u64());
  record.capacity_bytes = r.u64();
  bool good = read_flag(r, record.lost);
  good = read_flag(r, record.retired) && good;
  TRYV(end_record(r, good && record.id.valid() && record.server.valid(), "target"));
  return record;
}

std::string PoolRecord::encode() const {
  std::string out = begin_record();
  ByteWriter w(out);
  w.u16(id.value());
  w.u32(slots);
  w.u8(replicas);
  w.u8(min_replicas);
  w.u32(chunk_size);
  w.text(failure_domain);
  return out;
}

Result<PoolRecord> PoolRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "pool"));
  PoolRecord record;
  record.id = PoolId(r.u16());
  record.slots = r.u32();
  record.replicas = r.u8();
  record.min_replicas = r.u8();
  record.chunk_size = r.u32();
  record.failure_domain = r.text();
  const bool good = record.id.valid() && std::has_single_bit(record.slots) && record.replicas >= 1 &&
                    record.min_replicas >= 1 && record.min_replicas <= record.replicas &&
                    record.chunk_size > 0 && !record.failure_domain.empty();
  TRYV(end_record(r, good, "pool"));
  return record;
}

std::size_t GroupRecord::in_sync_count() const {
  return static_cast<std::size_t>(std::ranges::count_if(members, &GroupMember::in_sync));
}

const GroupMember* GroupRecord::find(TargetId target) const {
  auto found = std::ranges::find(members, target, &GroupMember::target);
  return found == members.end() ? nullptr : &*found;
}

std::string GroupRecord::encode() const {
  std::string out = begin_record();
  ByteWriter w(out);
  w.u64(epoch.value());
  w.u32(static_cast<std::uint32_t>(members.size()));
  for (const GroupMember& member : members) {
    w.u64(member.target.value());
    w.u8(member.in_sync);
    w.u8(member.restarted);
    w.u8(member.returning);
    w.u64(member.boot);
  }
  w.u8(reconcile);
  w.u32(static_cast<std::uint32_t>(away.size()));
  for (TargetId target : away) w.u64(target.value());
  w.u32(static_cast<std::uint32_t>(removed.size()));
  for (const RemovedMember& member : removed) {
    w.u64(member.server.value());
    w.u64(member.boot);
    w.u64(member.version);
  }
  w.u64(leaving.value());
  w.u64(loss_accepted.value());
  return out;
}

Result<GroupRecord> GroupRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "group"));
  GroupRecord record;
  record.epoch = Epoch(r.u64());
  std::size_t count = 0;
  bool good = read_count(r, 19, kMembersMax, count);
  std::set<TargetId> seen;
  bool joiners_began = false;
  for (std::size_t i = 0; i < count; ++i) {
    GroupMember member;
    member.target = TargetId(r.u64());
    good = read_flag(r, member.in_sync) && good;
    good = read_flag(r, member.restarted) && good;
    good = read_flag(r, member.returning) && good;
    member.boot = r.u64();
    good = good && member.target.valid() && seen.insert(member.target).second;
    good = good && !(joiners_began && member.in_sync);  // joiners stand last
    joiners_began = joiners_began || !member.in_sync;
    record.members.push_back(member);
  }
  good = read_flag(r, record.reconcile) && good;
  good = read_count(r, 8, kMembersMax, count) && good;
  for (std::size_t i = 0; i < count; ++i) record.away.emplace_back(r.u64());
  good = read_count(r, 24, kListMax, count) && good;
  for (std::size_t i = 0; i < count; ++i) {
    RemovedMember member;
    member.server = ServerId(r.u64());
    member.boot = r.u64();
    member.version = r.u64();
    record.removed.push_back(member);
  }
  record.leaving = TargetId(r.u64());
  record.loss_accepted = Epoch(r.u64());
  good = good && record.epoch.valid() && record.in_sync_count() > 0;
  TRYV(end_record(r, good, "group"));
  return record;
}

std::string PurgeRecord::encode() const {
  std::string out = begin_record();
  ByteWriter w(out);
  w.u64(data.value());
  w.u16(pool.value());
  w.u32(chunks);
  return out;
}

Result<PurgeRecord> PurgeRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "purge"));
  PurgeRecord record;
  record.data = DataId(r.u64());
  record.pool = PoolId(r.u16());
  record.chunks = r.u32();
  TRYV(end_record(r, record.data.valid() && record.pool.valid(), "purge"));
  return record;
}

std::string FenceRecord::encode() const {
  std::string out = begin_record();
  ByteWriter(out).u64(session.value());
  return out;
}

Result<FenceRecord> FenceRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "fence"));
  FenceRecord record{SessionId(r.u64())};
  TRYV(end_record(r, record.session.valid(), "fence"));
  return record;
}

std::string FenceFloorRecord::encode() const {
  std::string out = begin_record();
  ByteWriter w(out);
  w.u64(ended_below.value());
  w.u64(last);
  return out;
}

Result<FenceFloorRecord> FenceFloorRecord::decode(std::string_view bytes) {
  TRY(ByteReader r, open_record(bytes, "fence floor"));
  FenceFloorRecord record;
  record.ended_below = SessionId(r.u64());
  record.last = r.u64();
  TRYV(end_record(r, true, "fence floor"));
  return record;
}

std::string prefix_key(KeyPrefix prefix) {
  return std::string(1, static_cast<char>(prefix));
}

namespace {
std::string number_key(KeyPrefix prefix, std::uint64_t number) {
  std::string key = prefix_key(prefix);
  ByteWriter(key).be64(number);
  return key;
}
}  // namespace

std::string server_key(ServerId id) {
  return number_key(KeyPrefix::kServer, id.value());
}
std::string target_key(TargetId id) {
  return number_key(KeyPrefix::kTarget, id.value());
}
std::string purge_key(std::uint64_t sequence) {
  return number_key(KeyPrefix::kPurge, sequence);
}
std::string fence_key(std::uint64_t sequence) {
  return number_key(KeyPrefix::kFence, sequence);
}
std::string pool_key(PoolId id) {
  std::string key = prefix_key(KeyPrefix::kPool);
  ByteWriter(key).be16(id.value());
  return key;
}
std::string group_key(GroupId id) {
  std::string key = prefix_key(KeyPrefix::kGroup);
  ByteWriter w(key);
  w.be16(id.pool.value());
  w.be32(id.slot);
  return key;
}

Result<std::uint64_t> number_of_key(std::string_view key) {
  ByteReader r(key);
  r.u8();
  const std::uint64_t number = r.be64();
  if (!r.done()) return fail(Code::kCorrupt, "a key of the metadata store has a wrong length");
  return number;
}

Result<GroupId> group_of_key(std::string_view key) {
  ByteReader r(key);
  r.u8();
  GroupId id;
  id.pool = PoolId(r.be16());
  id.slot = r.be32();
  if (!r.done()) return fail(Code::kCorrupt, "the key of a group has a wrong length");
  return id;
}

}  // namespace cairn::meta
