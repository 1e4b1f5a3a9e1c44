// Test support: a chunk engine in memory. The MemoryDisk outlives engines on it, as a disk outlives
// processes: what a write stored survives the end of an engine (a process crash); power_cut() takes each
// chunk that was written since the last sync back to a state it had since then, chosen by `rng`.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "chunkserver/join_ledger.h"
#include "store/base/rng.h"
#include "store/disk/chunk_engine.h"

namespace cairn::chunkserver {

class MemoryDisk {
 public:
  MemoryDisk(ClusterId cluster, ServerId server, TargetId target, std::uint64_t capacity_bytes = 1ULL << 40);

  void power_cut(Rng& rng);
  // Flips a byte of the stored content, leaving its checksum. False: no such chunk or byte.
  bool damage(PoolId pool, ChunkId chunk, std::uint32_t at);
  void fail_io() { failing_ = true; }
  // Changes are answered so from now on; kOk: no more.
  void refuse(Code code) { refused_ = code; }
  void refuse_purges(bool on) { purges_refused_ = on; }
  // Puts content under a version behind the server's back, as an old disk might have it.
  void plant(PoolId pool, ChunkId chunk, Version version, std::string content);
  std::optional<std::string> content(PoolId pool, ChunkId chunk) const;
  std::optional<disk::ChunkInfo> info(PoolId pool, ChunkId chunk) const;
  std::size_t chunks() const;

 private:
  friend class MemoryEngine;
  struct Key {
    PoolId pool;
    HashOrder order;
    auto operator<=>(const Key&) const = default;
  };
  struct Stored {
    disk::ChunkInfo info;
    std::string bytes;
    std::vector<BlockChecksum> sums;
  };
  using History = std::vector<std::optional<Stored>>;  // states since the last sync, the synced one first

  static Key key(PoolId pool, const ChunkId& chunk) { return {pool, HashOrder(chunk)}; }
  void store(const Key& key, std::optional<Stored> next);
  std::uint64_t used() const;

  mutable std::mutex mutex_;
  disk::Superblock superblock_;
  const std::uint64_t capacity_;
  std::map<Key, Stored> chunks_;
  std::map<Key, History> unsynced_;
  std::map<std::string, std::string, std::less<>> values_;
  std::vector<disk::CorruptChunk> corrupt_;
  std::atomic<bool> failing_{false};
  std::atomic<Code> refused_{Code::kOk};
  std::atomic<bool> purges_refused_{false};
};

std::unique_ptr<disk::ChunkEngine> open_memory_engine(std::shared_ptr<MemoryDisk> disk);

}  // namespace cairn::chunkserver
