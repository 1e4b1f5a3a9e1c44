#include "meta/records.h"

#include "store/base/bytes.h"

namespace cairn::meta {

namespace {

// Every record's first byte. A later version of a record is decoded beside its predecessor.
constexpr std::uint8_t kRecordVersion = 1;
constexpr std::uint8_t kDirectoryWithSettings = 2;
constexpr std::uint8_t kCountersWithTrash = 2;
constexpr std::uint8_t kInodeWithShifts = 2;

std::unexpected<Error> corrupt(std::string_view what) {
  return fail(Code::kCorrupt, std::string(what) + " record does not decode");
}
bool good_version(ByteReader& r) {
  return r.u8() == kRecordVersion;
}

void write_ranges(ByteWriter& w, const Ranges& ranges) {
  w.u32(static_cast<std::uint32_t>(ranges.size()));
  for (const Range& range : ranges) {
    w.u64(range.from);
    w.u64(range.to);
  }
}
bool read_ranges(ByteReader& r, Ranges& out) {
  const std::uint32_t count = r.u32();
  if (std::uint64_t{count} * 16 > r.left()) return false;
  out.resize(count);
  for (Range& range : out) {
    range.from = r.u64();
    range.to = r.u64();
  }
  return well_formed(out);
}
std::uint64_t unsigned_of(std::int64_t v) {
  return static_cast<std::uint64_t>(v);
}
std::int64_t signed_of(std::uint64_t v) {
  return static_cast<std::int64_t>(v);
}

}  // namespace

std::string InodeRecord::encode() const {
  std::string out;
  out.reserve(192);
  ByteWriter w(out);
  // An earlier program can go on with a file that shares nothing.
  const bool shifts = layers.size() > 1;
  w.u8(shifts ? kInodeWithShifts : kRecordVersion);
  w.u32(mode);
  w.u8(flags);
  w.u32(nlink);
  w.u32(uid);
  w.u32(gid);
  w.u64(rdev);
  w.u64(size);
  w.u64(bytes);
  for (const std::int64_t time : {atime, mtime, ctime, btime}) w.u64(unsigned_of(time));
  w.u64(change);
  w.u64(parent.value());
  w.u64(synced_size);
  w.u64(bound);
  w.u64(trim.from);
  w.u64(trim.to);
  w.u8(static_cast<std::uint8_t>(layers.size()));
  for (const LayerRecord& layer : layers) {
    w.u64(layer.data.value());
    w.u16(layer.pool.value());
    w.u32(layer.chunk_size);
    w.u8(layer.frozen ? 1 : 0);
    if (shifts) w.u64(unsigned_of(layer.shift));
    write_ranges(w, layer.chunks);
  }
  write_ranges(w, holes);
  return out;
}

Result<InodeRecord> InodeRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  const std::uint8_t version = r.u8();
  if (version != kRecordVersion && version != kInodeWithShifts) return corrupt("inode");
  InodeRecord inode;
  inode.mode = r.u32();
  inode.flags = r.u8();
  inode.nlink = r.u32();
  inode.uid = r.u32();
  inode.gid = r.u32();
  inode.rdev = r.u64();
  inode.size = r.u64();
  inode.bytes = r.u64();
  for (std::int64_t* time : {&inode.atime, &inode.mtime, &inode.ctime, &inode.btime})
    *time = signed_of(r.u64());
  inode.change = r.u64();
  inode.parent = InodeId(r.u64());
  inode.synced_size = r.u64();
  inode.bound = r.u64();
  inode.trim.from = r.u64();
  inode.trim.to = r.u64();
  const std::size_t layers = r.u8();
  if (layers > kLayersMax) return corrupt("inode");
  inode.layers.resize(layers);
  for (LayerRecord& layer : inode.layers) {
    layer.data = DataId(r.u64());
    layer.pool = PoolId(r.u16());
    layer.chunk_size = r.u32();
    const std::uint8_t frozen = r.u8();
    layer.frozen = frozen == 1;
    if (version == kInodeWithShifts) layer.shift = signed_of(r.u64());
    if (frozen > 1 || layer.chunk_size == 0 || !read_ranges(r, layer.chunks)) return corrupt("inode");
  }
  if (!read_ranges(r, inode.holes) || !r.done()) return corrupt("inode");
  if (inode.is_regular() && inode.layers.empty()) return corrupt("inode");
  if (version == kInodeWithShifts && layers < 2) return corrupt("inode");
  return inode;
}

std::string DirectoryRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(has_settings() ? kDirectoryWithSettings : kRecordVersion);
  w.u64(parent.value());
  w.u64(unsigned_of(bytes));
  w.u64(unsigned_of(inodes));
  w.u64(next_cookie);
  if (has_settings()) {
    w.u64(bytes_max);
    w.u64(inodes_max);
    w.u64(unsigned_of(retention_ns));
  }
  return out;
}
Result<DirectoryRecord> DirectoryRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  const std::uint8_t version = r.u8();
  if (version != kRecordVersion && version != kDirectoryWithSettings) return corrupt("directory");
  DirectoryRecord d;
  d.parent = InodeId(r.u64());
  d.bytes = signed_of(r.u64());
  d.inodes = signed_of(r.u64());
  d.next_cookie = r.u64();
  if (version == kDirectoryWithSettings) {
    d.bytes_max = r.u64();
    d.inodes_max = r.u64();
    d.retention_ns = signed_of(r.u64());
  }
  if (!r.done()) return corrupt("directory");
  return d;
}

std::string DentryRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(inode.value());
  w.u32(type);
  w.u64(cookie);
  return out;
}
Result<DentryRecord> DentryRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("dentry");
  DentryRecord d;
  d.inode = InodeId(r.u64());
  d.type = r.u32();
  d.cookie = r.u64();
  if (!r.done()) return corrupt("dentry");
  return d;
}

std::string CookieRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(inode.value());
  w.u32(type);
  w.text(name);
  return out;
}
Result<CookieRecord> CookieRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("directory entry");
  CookieRecord c;
  c.inode = InodeId(r.u64());
  c.type = r.u32();
  c.name = r.text();
  if (!r.done()) return corrupt("directory entry");
  return c;
}

std::string SessionRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u8(static_cast<std::uint8_t>(state));
  w.u64(fence);
  w.u64(unsigned_of(opened));
  w.text(name);
  return out;
}
Result<SessionRecord> SessionRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("session");
  SessionRecord s;
  const std::uint8_t state = r.u8();
  s.state = static_cast<State>(state);
  s.fence = r.u64();
  s.opened = signed_of(r.u64());
  s.name = r.text();
  if (!r.done() || state > 1) return corrupt("session");
  return s;
}

std::string ExclusiveRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(session.value());
  w.u64(generation.value());
  return out;
}
Result<ExclusiveRecord> ExclusiveRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("lease");
  ExclusiveRecord e;
  e.session = SessionId(r.u64());
  e.generation = LeaseGeneration(r.u64());
  if (!r.done()) return corrupt("lease");
  return e;
}

std::string CountRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(count);
  return out;
}
Result<CountRecord> CountRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("count");
  CountRecord c;
  c.count = r.u64();
  if (!r.done()) return corrupt("count");
  return c;
}

std::string ObjectRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u8(static_cast<std::uint8_t>(state));
  w.u64(size);
  w.u64(digest.high);
  w.u64(digest.low);
  w.u64(data.value());
  w.u16(pool.value());
  w.u32(chunk_size);
  w.u64(unsigned_of(created));
  w.u64(unsigned_of(sealed));
  w.u32(pending);
  w.text(lineage);
  return out;
}
Result<ObjectRecord> ObjectRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("object");
  ObjectRecord o;
  const std::uint8_t state = r.u8();
  o.state = static_cast<ObjectState>(state);
  o.size = r.u64();
  o.digest.high = r.u64();
  o.digest.low = r.u64();
  o.data = DataId(r.u64());
  o.pool = PoolId(r.u16());
  o.chunk_size = r.u32();
  o.created = signed_of(r.u64());
  o.sealed = signed_of(r.u64());
  o.pending = r.u32();
  o.lineage = r.text();
  if (!r.done() || state > 4 || o.chunk_size == 0) return corrupt("object");
  return o;
}

std::string PendingRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(session.value());
  w.u16(pool.value());
  w.u32(chunks);
  w.text(object);
  return out;
}
Result<PendingRecord> PendingRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("pending object");
  PendingRecord p;
  p.session = SessionId(r.u64());
  p.pool = PoolId(r.u16());
  p.chunks = r.u32();
  p.object = r.text();
  if (!r.done()) return corrupt("pending object");
  return p;
}

std::string DataRefRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(count);
  w.u32(chunks);
  return out;
}
Result<DataRefRecord> DataRefRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("data reference");
  DataRefRecord ref;
  ref.count = r.u64();
  ref.chunks = r.u32();
  if (!r.done()) return corrupt("data reference");
  return ref;
}

std::string TrashRecord::encode() const {
  std::string out;
  ByteWriter w(out);
  w.u8(kRecordVersion);
  w.u64(parent.value());
  w.u64(unsigned_of(deleted));
  w.u32(mode);
  w.u32(uid);
  w.u32(gid);
  w.u32(by);
  w.text(client);
  w.text(name);
  return out;
}
Result<TrashRecord> TrashRecord::decode(std::string_view bytes) {
  ByteReader r(bytes);
  if (!good_version(r)) return corrupt("trash");
  TrashRecord t;
  t.parent = InodeId(r.u64());
  t.deleted = signed_of(r.u64());
  t.mode = r.u32();
  t.uid = r.u32();
  t.gid = r.u32();
  t.by = r.u32();
  t.client = r.text();
  t.name = r.text();
  if (!r.done()) return corrupt("trash");
  return t;
}

std::string Counters::encode() const {
  const bool trash = trash_files != 0 || trash_bytes != 0;
  std::string out;
  ByteWriter w(out);
  w.u8(trash ? kCountersWithTrash : kRecordVersion);
  w.u64(inodes);
  w.u64(directories);
  w.u64(objects);
  if (trash) {
    w.u64(trash_files);
    w.u64(trash_bytes);
  }
  return out;
}
Result<Counters> Counters::decode(std::string_view bytes) {
  ByteReader r(bytes);
  const std::uint8_t version = r.u8();
  if (version != kRecordVersion && version != kCountersWithTrash) return corrupt("counters");
  Counters c;
  c.inodes = r.u64();
  c.directories = r.u64();
  c.objects = r.u64();
  if (version == kCountersWithTrash) {
    c.trash_files = r.u64();
    c.trash_bytes = r.u64();
  }
  if (!r.done()) return corrupt("counters");
  return c;
}

}  // namespace cairn::meta
