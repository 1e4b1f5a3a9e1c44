// The chunk engine: all that one disk (a *target*) holds. One instance a target directory.
//
// Problem it solves: chunks of a few bytes to 64 MiB, written in pieces, replaced, trimmed and removed, with
// every stored block checksummed, one sync a durable write, and after a crash each chunk at its old or its
// new version. RocksDB holds the index and small chunks inline; larger ones have one extent in files outside
// RocksDB, so that bulk bytes are written once and never compacted. Formats and the crash argument:
// docs/formats.md, store/disk/README.md.
//
// Threading: every call may block on the disk: call from the target's own pool, never from an io thread.
// Calls are thread-safe. Calls on one chunk are serialised inside; the caller orders writes by giving
// versions. Owner: the chunkserver's target. Shutdown: destroy it (syncs and closes); all calls must have
// returned.
//
// Durability: a write that returned is in the kernel's hands (survives kill -9); it survives a power cut once
// a sync that started after it returned has returned. Chunks given `durable` return synced.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/checksum.h"
#include "store/base/ids.h"
#include "store/base/result.h"

namespace cairn::disk {

class Disk;  // disk.h: the injectable file operations (real, or one that crashes)

struct EngineOptions {
  std::uint64_t capacity_bytes = 0;  // 0: the file system's size. What this target may use in all
  std::uint64_t reserve_bytes =
      256 << 20;  // kept free of chunk data, so that deletes, repair marks and compaction work
  std::uint32_t inline_bytes_max = 32 << 10;  // chunks up to this length live in RocksDB
  std::uint64_t cache_bytes = 32 << 20;       // RocksDB block cache; memtables are bounded besides
  // A thread of the engine syncs what is unsynced and writes logged overwrites in place this often, so that
  // little is lost in a power cut and space of removed chunks comes back. 0: no thread, the calls do that
  // work (tests).
  std::chrono::milliseconds background_interval{2000};
};

// Who this disk is. Written when the target is formatted; checked at each open.
struct Superblock {
  ClusterId cluster;
  ServerId server;
  TargetId target;  // random: a wiped disk is a new target
  Era era;
  std::uint64_t boot_count = 0;         // grows at each open: a disk that went back in time shows
  bool clean = false;                   // the last close was clean
  std::string machine_boot_id;          // of the last open: tells a process crash from a machine crash
  std::uint64_t extent_file_bytes = 0;  // size of each (sparse) extent file
};

enum class ChunkState : std::uint8_t {
  kPresent = 0,
  kAbsent = 1,  // a versioned record that the chunk was removed (of a living file): needed until every member
                // has it
};

// The index record of a chunk, without its checksums.
struct ChunkInfo {
  ChunkId chunk;
  PoolId pool;
  Version version;
  ChunkState state = ChunkState::kPresent;
  std::uint32_t length = 0;  // bytes; 0 to the chunk size
  RequestId last_request;    // of the write that made `version`
  InodeId owner_hint;        // inode, or 0 for an object: for salvage
  bool object = false;       // put whole, once; never overwritten
  Digest digest;             // chunk_digest() of the content: what catch-up compares
};

struct WriteOptions {
  PoolId pool;
  Version
      version;  // must be greater than the stored one, else kStale (equal version and request: already done)
  RequestId request;
  InodeId owner_hint;
  bool durable = false;  // return only when synced (group-committed with other syncs)
  bool object = false;   // put(kReplaceLower): the copy of an object chunk keeps that mark. Ignored elsewhere
};

struct ReadResult {
  ChunkInfo info;
  std::uint32_t aligned_offset = 0;      // where `data` begins: a block boundary at or below the offset asked
  std::string data;                      // whole blocks covering the range, cut at the chunk's length
  std::vector<BlockChecksum> checksums;  // one a block of `data`; already verified against `data`
};

struct Usage {
  std::uint64_t capacity_bytes = 0;
  std::uint64_t used_bytes = 0;  // extents + RocksDB files
  std::uint64_t available_bytes =
      0;  // for chunk data: the reserve and what other users of the file system took are off
  std::uint64_t chunks = 0;
};

// What a failed check found.
struct CorruptChunk {
  ChunkInfo info;
  std::uint32_t block = 0;
  std::string detail;
};

class ChunkEngine {
 public:
  // Formats an empty directory (made if missing). kExists if it holds anything else than "lost+found".
  // `extent_file_bytes` 0: chosen by the size of the file system (1 GiB, more on disks beyond 256 GiB).
  static Result<Superblock> format(Disk& disk, const std::string& dir, ClusterId cluster, ServerId server,
                                   Era era, std::uint64_t extent_file_bytes = 0);
  // Reads only the superblock: kNotFound for an empty or missing directory, kCorrupt, kVersionMismatch.
  static Result<Superblock> identify(Disk& disk, const std::string& dir);
  // Opens a formatted target: takes its lock (kLocked names the holder's pid), replays, frees leaked space;
  // after a machine crash also verifies what was never synced and keeps old or new version of each chunk.
  // kWrongCluster if `cluster` is not the superblock's. kCorrupt: the index is gone or damaged; nothing was
  // changed.
  static Result<std::unique_ptr<ChunkEngine>> open(Disk& disk, const std::string& dir, ClusterId cluster,
                                                   const EngineOptions& options);
  virtual ~ChunkEngine() = default;

  virtual const Superblock& superblock() const = 0;

  // --- reading. kNotFound: no record at all. A record in state kAbsent is returned with no data by stat and
  // is kNotFound with message "absent" for read. ---
  virtual Result<ChunkInfo> stat(PoolId pool, ChunkId chunk) = 0;
  // Bytes [offset, offset+length) cut at the chunk's length (a range past it: empty data). Verifies; kCorrupt
  // names chunk, block and target, and the chunk is queued in take_corrupt().
  virtual Result<ReadResult> read(PoolId pool, ChunkId chunk, std::uint32_t offset, std::uint32_t length) = 0;
  virtual Result<std::vector<BlockChecksum>> checksums(PoolId pool, ChunkId chunk) = 0;

  // --- writing ---
  // Writes `data` at `offset`. A gap between the old length and `offset` becomes zeros. `checksums` covers
  // the whole blocks of the range as the writer computed them: data must begin and end at block boundaries,
  // except that it may end at the new end of the chunk, OR `checksums` is empty: then the engine verifies the
  // old partial blocks, merges and computes new ones. When given, the checksums are verified against `data`
  // before anything is stored (kCorrupt). kNoSpace: nothing changed. kStale: a version at or above is stored.
  virtual Result<ChunkInfo> write(ChunkId chunk, std::uint32_t offset, Bytes data,
                                  std::span<const BlockChecksum> checksums, const WriteOptions& options) = 0;
  // Stores whole content, replacing what is there atomically (copy-in of repair and catch-up, objects,
  // re-versioning). With `object` and a present object chunk of the same digest: succeeds, changes nothing;
  // another digest: kExists.
  enum class PutMode { kReplaceLower, kObjectOnce };
  virtual Result<ChunkInfo> put(ChunkId chunk, Bytes data, std::span<const BlockChecksum> checksums,
                                PutMode mode, const WriteOptions& options) = 0;
  // Cuts (or extends with zeros) to `length`.
  virtual Result<ChunkInfo> truncate(ChunkId chunk, std::uint32_t length, const WriteOptions& options) = 0;
  // Zeros a range in place of the bytes (punch hole inside a chunk).
  virtual Result<ChunkInfo> punch(ChunkId chunk, std::uint32_t offset, std::uint32_t length,
                                  const WriteOptions& options) = 0;
  // Replaces content by a versioned absent record.
  virtual Result<ChunkInfo> make_absent(ChunkId chunk, const WriteOptions& options) = 0;
  // Raises the version without touching content (a survivor re-versions before a returning member copies).
  virtual Result<ChunkInfo> reversion(ChunkId chunk, const WriteOptions& options) = 0;
  // Puts good bytes in the place of damaged ones: whole blocks from `first_block` on (the last may end at the
  // chunk's end), which must be exactly what is recorded there: they match the stored checksums, else kStale
  // and nothing changed. Version and digest stay. Synced on return; a power cut leaves each block as it was
  // or good.
  virtual Result<> mend(PoolId pool, ChunkId chunk, std::uint32_t first_block, Bytes data) = 0;
  // Removes record and content entirely; success if there is none. Only on the metadata server's order.
  virtual Result<> purge(PoolId pool, ChunkId chunk) = 0;

  // Everything that returned before this call is on disk when it returns. Concurrent calls share one sync.
  // A failed sync is final: this and all later writes and syncs return kIo (the target leaves, the process
  // stays).
  virtual Result<> sync() = 0;
  // Chunk's version is at or above `version` and synced: true; synced lower or absent: false.
  virtual Result<bool> synced(PoolId pool, ChunkId chunk, Version version) = 0;

  // --- iteration and accounting ---
  // Chunks whose slot among `slots` is group.slot, in hash order, starting after `after` (the ChunkInfo last
  // given); `visit` returns false to stop. Sees a consistent snapshot; does not block writers.
  virtual Result<> for_each(GroupId group, std::uint32_t slots, std::optional<ChunkId> after,
                            const std::function<bool(const ChunkInfo&)>& visit) = 0;
  // Every chunk of the target, any order.
  virtual Result<> for_each(const std::function<bool(const ChunkInfo&)>& visit) = 0;
  virtual Usage usage() = 0;
  // Corruption found by reads and scrubs since the last call (bounded; the oldest are kept).
  virtual std::vector<CorruptChunk> take_corrupt() = 0;
  // Small named values that live with the target and are synced before return (highest epochs, ended
  // sessions).
  virtual Result<> set_value(std::string_view key, std::string_view value) = 0;
  virtual Result<std::optional<std::string>> get_value(std::string_view key) = 0;
  virtual Result<std::vector<std::pair<std::string, std::string>>> values(std::string_view prefix) = 0;
};

}  // namespace cairn::disk
