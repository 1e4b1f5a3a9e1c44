// What the namespace side stores, little-endian, each beginning with a version byte. decode() of any bytes
// gives a record or kCorrupt, never more. Limits are checked where records are made (a record stays well
// below a journal entry).
//
//   inode      2 | mode u32 | flags u8 | nlink u32 | uid u32 | gid u32 | rdev u64 | size u64 | bytes u64 |
//   atime, mtime, ctime,
//              btime i64 | change u64 | parent u64 | synced_size u64 | bound u64 | trim from, to u64 | layers
//              u8, each (data u64 | pool u16 | chunk_size u32 | frozen u8 | shift i64 | ranges) | holes
//              ranges; ranges: count u32, (from, to u64).  Version 1, written while there is one layer:
//              without shift
//   directory  1 | parent u64 | bytes i64 | inodes i64 | next_cookie u64
//              2 | as 1 | bytes_max u64 | inodes_max u64 | retention_ns i64   (only of those with settings)
//   dentry     1 | inode u64 | type u32 | cookie u64;  by cookie: 1 | inode u64 | type u32 | name
//   session    1 | state u8 | fence u64 | opened i64 | name
//   exclusive  1 | session u64 | generation u64
//   count      1 | u64   (opens; names in a directory; bytes reserved; directory with settings: 1)
//   data ref   1 | count u64 | chunks u32
//   object     1 | state u8 | size u64 | digest u64, u64 | data u64 | pool u16 | chunk_size u32 | created i64
//   | sealed i64
//              | pending u32 | lineage
//   pending    1 | session u64 | pool u16 | chunks u32 | object key
//   counters   1 | inodes u64 | directories u64 | objects u64
//              2 | as 1 | trash files u64 | trash bytes u64   (only when there is trash)
//   trash      1 | parent u64 | deleted i64 | mode, uid, gid u32 | by u32 | client | name
//   reply      1 | bytes of the reply's message
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <vector>

#include "meta/ranges.h"
#include "store/base/checksum.h"
#include "store/base/ids.h"
#include "store/base/result.h"

namespace cairn::meta {

constexpr std::size_t kHolesMax = 16384;  // 256 KiB of the largest inode record
// What a file may share. The ranges are at most so many whatever is written to the file afterwards, so that a
// write never meets this limit: 192 KiB of the largest inode record.
constexpr std::size_t kLayersMax = 128;
constexpr std::size_t kLayerRangesMax = 12288;
constexpr std::uint64_t kSizeMax =
    std::uint64_t{1} << 53;  // of a file or object, 8 PiB: chunk indices stay below 2^32 at 4 MiB

// See docs/layouts.md. The first layer of a file is its own: it is written to, and holds all chunks that are
// neither holes nor in one of the other layers. Those are frozen: their data ids may be part of other files
// too.
struct LayerRecord {
  DataId data;
  PoolId pool;
  std::uint32_t chunk_size = kDefaultChunkSize;
  bool frozen = false;
  Ranges chunks;           // frozen: indices in the file
  std::int64_t shift = 0;  // frozen: index in the data id, less the index in the file
  bool operator==(const LayerRecord&) const = default;
};

struct InodeRecord {
  // Whether rows of these kinds may exist, so that most deletions need not look for them.
  static constexpr std::uint8_t kHasXattrs = 1;
  static constexpr std::uint8_t kHadLinks = 2;
  static constexpr std::uint8_t kHasAcl = 4;         // an access control list that says more than the mode
  static constexpr std::uint8_t kHasDefaultAcl = 8;  // of a directory: for what is made in it
  static constexpr std::uint8_t kHasReserved = 64;   // bytes for its exclusive holder: meta/quota.h
  static constexpr std::uint8_t kTrashed = 128;      // without names, and kept: meta/trash.h

  std::uint32_t mode = 0;
  std::uint8_t flags = 0;
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t bytes = 0;
  std::int64_t atime = 0;
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  std::int64_t btime = 0;
  std::uint64_t change = 0;
  InodeId parent;  // directory that accounts for it (of a directory: its parent); none: unlinked
  std::uint64_t synced_size = 0;    // a chunk below it, outside the holes, must exist
  std::uint64_t bound = 0;          // first chunk that the exclusive holder may not write
  Range trim;                       // bytes
  std::vector<LayerRecord> layers;  // regular files: at least one, top first
  Ranges holes;                     // chunks below the size never written

  bool is_directory() const { return S_ISDIR(mode); }
  bool is_regular() const { return S_ISREG(mode); }
  bool is_symlink() const { return S_ISLNK(mode); }
  std::uint32_t chunk_size() const { return layers.empty() ? kDefaultChunkSize : layers.front().chunk_size; }
  std::uint64_t chunks_of(std::uint64_t length) const { return (length + chunk_size() - 1) / chunk_size(); }
  std::string encode() const;
  static Result<InodeRecord> decode(std::string_view bytes);
  bool operator==(const InodeRecord&) const = default;
};

struct DirectoryRecord {
  static constexpr std::int64_t kInherited = -1;
  InodeId parent;
  std::int64_t bytes = 0;   // allocated in the subtree, or reserved there (meta/quota.h)
  std::int64_t inodes = 0;  // below it, itself not counted
  std::uint64_t next_cookie = 1;
  std::uint64_t bytes_max = 0;  // quota; 0: none
  std::uint64_t inodes_max = 0;
  std::int64_t retention_ns = kInherited;  // of what is deleted below
  bool has_settings() const { return bytes_max != 0 || inodes_max != 0 || retention_ns != kInherited; }
  std::string encode() const;
  static Result<DirectoryRecord> decode(std::string_view bytes);
  bool operator==(const DirectoryRecord&) const = default;
};

struct DentryRecord {
  InodeId inode;
  std::uint32_t type = 0;  // S_IFMT bits
  std::uint64_t cookie = 0;
  std::string encode() const;
  static Result<DentryRecord> decode(std::string_view bytes);
  bool operator==(const DentryRecord&) const = default;
};

struct CookieRecord {
  InodeId inode;
  std::uint32_t type = 0;
  std::string name;
  std::string encode() const;
  static Result<CookieRecord> decode(std::string_view bytes);
  bool operator==(const CookieRecord&) const = default;
};

struct SessionRecord {
  enum class State : std::uint8_t {
    kAlive = 0,
    kEnded = 1
  };  // ended: its leases, opens and objects are being taken back
  State state = State::kAlive;
  std::uint64_t fence = 0;  // sequence, once ended
  std::int64_t opened = 0;
  std::string name;
  std::string encode() const;
  static Result<SessionRecord> decode(std::string_view bytes);
  bool operator==(const SessionRecord&) const = default;
};

struct ExclusiveRecord {
  SessionId session;
  LeaseGeneration generation;
  std::string encode() const;
  static Result<ExclusiveRecord> decode(std::string_view bytes);
  bool operator==(const ExclusiveRecord&) const = default;
};

struct CountRecord {
  std::uint64_t count = 0;
  std::string encode() const;
  static Result<CountRecord> decode(std::string_view bytes);
  bool operator==(const CountRecord&) const = default;
};

enum class ObjectState : std::uint8_t {
  kPending = 0,
  kSealedMemory = 1,
  kSealed = 2,
  kDeleted = 3,
  kLost = 4
};

struct ObjectRecord {
  ObjectState state = ObjectState::kPending;
  std::uint64_t size = 0;
  Digest digest;
  DataId data;
  PoolId pool;
  std::uint32_t chunk_size = kDefaultChunkSize;
  std::int64_t created = 0;
  std::int64_t sealed = 0;
  std::uint32_t pending = 0;  // unsealed data ids made for this key
  std::string lineage;
  std::string encode() const;
  static Result<ObjectRecord> decode(std::string_view bytes);
  bool operator==(const ObjectRecord&) const = default;
};

struct PendingRecord {
  SessionId session;
  PoolId pool;
  std::uint32_t chunks = 0;  // that may have been written
  std::string object;        // key in the store
  std::string encode() const;
  static Result<PendingRecord> decode(std::string_view bytes);
  bool operator==(const PendingRecord&) const = default;
};

// Of a frozen data id.
struct DataRefRecord {
  std::uint64_t count = 0;   // layers, of all inodes, that name it
  std::uint32_t chunks = 0;  // that may exist of it
  std::string encode() const;
  static Result<DataRefRecord> decode(std::string_view bytes);
  bool operator==(const DataRefRecord&) const = default;
};

struct TrashRecord {
  InodeId parent;            // the directory that it was removed from
  std::int64_t deleted = 0;  // when
  std::uint32_t mode = 0;    // a removed directory has no other record left
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t by = 0;  // uid of who removed it
  std::string client;    // on which it was removed
  std::string name;
  bool is_directory() const { return S_ISDIR(mode); }
  std::string encode() const;
  static Result<TrashRecord> decode(std::string_view bytes);
  bool operator==(const TrashRecord&) const = default;
};

struct Counters {
  std::uint64_t inodes = 0;  // all types, orphans too, but not what is in the trash
  std::uint64_t directories = 0;
  std::uint64_t objects = 0;  // sealed
  std::uint64_t trash_files = 0;
  std::uint64_t trash_bytes = 0;
  std::string encode() const;
  static Result<Counters> decode(std::string_view bytes);
  bool operator==(const Counters&) const = default;
};

}  // namespace cairn::meta
