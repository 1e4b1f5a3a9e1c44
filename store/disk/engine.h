// The implementation of ChunkEngine. Interface: chunk_engine.h; formats and the crash argument: README.md.
//
// Locks, in this order: a stripe (all work on its chunks; readers shared), a GenerationGate::Pass (while a
// change is written to the index), then the small leaf mutexes. A sync takes no stripe. Parts: engine_open.cc
// (format, open, recovery), engine_read.cc, engine_write.cc (what each operation changes), engine_commit.cc
// (how a change becomes the new state), engine_sync.cc (sync, checkpoint, background).
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "store/disk/ballast.h"
#include "store/disk/chunk_engine.h"
#include "store/disk/chunk_state.h"
#include "store/disk/disk.h"
#include "store/disk/extent_store.h"
#include "store/disk/generation_gate.h"
#include "store/disk/index.h"
#include "store/disk/space_gauge.h"

namespace cairn::disk {

inline MutableBytes writable(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}

class Engine final : public ChunkEngine {
 public:
  static Result<std::unique_ptr<ChunkEngine>> open_target(Disk& disk, const std::string& dir,
                                                          ClusterId cluster, const EngineOptions& options);
  ~Engine() override;

  const Superblock& superblock() const override { return superblock_; }
  Result<ChunkInfo> stat(PoolId pool, ChunkId chunk) override;
  Result<ReadResult> read(PoolId pool, ChunkId chunk, std::uint32_t offset, std::uint32_t length) override;
  Result<std::vector<BlockChecksum>> checksums(PoolId pool, ChunkId chunk) override;
  Result<ChunkInfo> write(ChunkId chunk, std::uint32_t offset, Bytes data,
                          std::span<const BlockChecksum> checksums, const WriteOptions& options) override;
  Result<ChunkInfo> put(ChunkId chunk, Bytes data, std::span<const BlockChecksum> checksums, PutMode mode,
                        const WriteOptions& options) override;
  Result<ChunkInfo> truncate(ChunkId chunk, std::uint32_t length, const WriteOptions& options) override;
  Result<ChunkInfo> punch(ChunkId chunk, std::uint32_t offset, std::uint32_t length,
                          const WriteOptions& options) override;
  Result<ChunkInfo> make_absent(ChunkId chunk, const WriteOptions& options) override;
  Result<ChunkInfo> reversion(ChunkId chunk, const WriteOptions& options) override;
  Result<> mend(PoolId pool, ChunkId chunk, std::uint32_t first_block, Bytes data) override;
  Result<> purge(PoolId pool, ChunkId chunk) override;
  Result<> sync() override;
  Result<bool> synced(PoolId pool, ChunkId chunk, Version version) override;
  Result<> for_each(GroupId group, std::uint32_t slots, std::optional<ChunkId> after,
                    const std::function<bool(const ChunkInfo&)>& visit) override;
  Result<> for_each(const std::function<bool(const ChunkInfo&)>& visit) override;
  Usage usage() override;
  std::vector<CorruptChunk> take_corrupt() override;
  Result<> set_value(std::string_view key, std::string_view value) override;
  Result<std::optional<std::string>> get_value(std::string_view key) override;
  Result<std::vector<std::pair<std::string, std::string>>> values(std::string_view prefix) override;

  // All pending work at once: sync, logged overwrites in place, freed extents back. What the background does
  // in time.
  Result<> maintain();
  // Syncs, then finds out whether index and extents agree exactly (no space leaked, no row left behind):
  // kInternal if not. Nothing else may run meanwhile.
  Result<> check_consistency();

 private:
  static constexpr std::size_t kStripes = 256;
  static constexpr std::size_t kCachedPerStripe = 8;
  static constexpr std::uint32_t kRedoMax = 64 << 10;            // longer overwrites go to a fresh extent
  static constexpr std::uint64_t kRedoBytesSoft = 4 << 20;       // then the background writes them in place
  static constexpr std::uint64_t kRedoBytesHard = 16 << 20;      // then the writer does it itself
  static constexpr std::uint64_t kUnsyncedBytesMax = 256 << 20;  // of extents: then the writer syncs
  static constexpr std::uint64_t kUnsyncedChunksMax = 4096;
  static constexpr std::size_t kNoteBytes = 16;         // generation:u64 checksum:u64 (XXH3-64)
  static constexpr std::uint64_t kNoteSlotBytes = 512;  // a sector: written whole or not
  static constexpr int kRoomClass = 6;                  // 4 MiB: chunks written piece by piece grow to it

  struct Stripe {
    std::shared_mutex mutex;
    std::unordered_map<ChunkKey, std::unique_ptr<Chunk>, ChunkKeyHash> chunks;  // what writers touched lately
  };

  // A change being prepared; commit() makes it the chunk's new state or gives back what it took.
  struct Change {
    State next;
    std::vector<BlockChecksum> sums;        // all of `next`
    std::uint32_t first_changed_block = 0;  // sums before it are as they were
    std::uint32_t end_changed_block = 0;
    InodeId owner_hint;
    bool direct = false;  // bytes went into an extent that only a sync makes durable
    std::vector<Redo> redo;
    std::optional<std::string_view> inline_bytes;  // the new row: the caller's bytes, or:
    std::string inline_buffer;
    std::optional<Extent> fresh;       // allocated for this change
    std::optional<Extent> grown_from;  // the extent before it grew in place
    std::vector<Extent> cut;           // ends of the extent given up
    std::uint64_t written_bytes = 0;
  };

  Engine(Disk& disk, std::string dir, const EngineOptions& options);

  // engine_open.cc, engine_recover.cc
  Result<> start(ClusterId cluster);
  Result<> open_index(bool clean, bool same_boot);
  Result<> open_note();
  std::unexpected<Error> damaged(std::string_view what) const;
  Result<> recover();
  struct Recovery;
  Result<> read_redo_rows(Recovery& recovery);
  Result<> scan_records(Recovery& recovery);
  Result<> recover_chunk(Chunk& chunk, Recovery& recovery);
  Result<bool> verify_and_rewrite(Chunk& chunk);
  Result<> fall_back(Chunk& chunk);
  bool extents_known(const Chunk& chunk) const;
  Result<> redo_in_place(const Chunk& chunk);
  Result<> finish_recovery(Recovery& recovery);

  // engine_read.cc
  Stripe& stripe_of(const ChunkKey& key) { return stripes_[key.hash() % kStripes]; }
  Result<> load_record(Chunk& chunk);  // by chunk.key; exists = false if there is none
  Result<> load_sums(Chunk& chunk, std::uint32_t first_block, std::uint32_t end_block);
  Result<Chunk*> find_for_read(Stripe& stripe, const ChunkKey& key, Chunk& local);
  Result<> read_raw(const Chunk& chunk, std::uint32_t offset, MutableBytes to);
  Result<> read_blocks(const Chunk& chunk, std::uint32_t first_block, MutableBytes to);  // verified
  std::unexpected<Error> corrupt(const Chunk& chunk, std::uint32_t block, std::string detail);
  Result<> visit_range(std::string_view begin, std::string_view end,
                       const std::function<bool(const ChunkInfo&)>& visit);

  // engine_write.cc
  Result<Chunk*> load_for_write(Stripe& stripe, const ChunkKey& key);
  void evict(Stripe& stripe);
  bool pinned(const Chunk& chunk) const;
  static Result<bool> already_done(const Chunk& chunk, const WriteOptions& options);
  Result<> check_writable() const;
  Result<> check_storable();
  static Change change_of(const Chunk& chunk, const WriteOptions& options);
  static void empty_out(Change& change);
  Result<> replace_all(Change& change, Bytes data, std::vector<BlockChecksum> sums);
  Result<> take_fresh(Change& change, int room_class);
  Result<> write_direct(Change& change, std::uint32_t offset, Bytes data);
  // Bytes [begin, data_begin) become zeros, then `data`; the chunk grows if that reaches past its end.
  Result<> fill(Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin, Bytes data,
                std::span<const BlockChecksum> given);
  Result<> fill_inline(Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                       Bytes data, std::span<const BlockChecksum> given);
  Result<> fill_sums(const Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                     Bytes data, std::span<const BlockChecksum> given);
  Result<> fill_in_place(const Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                         Bytes data, std::uint32_t overlap);
  Result<> fill_fresh(Chunk& chunk, Change& change, std::uint32_t begin, std::uint32_t data_begin,
                      Bytes data);
  static void add_redo(const Chunk& chunk, Change& change, std::uint32_t offset, std::uint32_t length,
                       Bytes bytes);
  Result<> cut(Chunk& chunk, Change& change, std::uint32_t length);
  Result<> copy_old(const Chunk& chunk, const Extent& to, std::uint32_t from, std::uint32_t until);
  Result<> mend_inline(const Chunk& chunk, std::uint32_t offset, Bytes data);
  Result<bool> repeats_old(const Chunk& chunk, std::uint32_t offset, Bytes data);
  std::uint32_t effective_hold(const Chunk& chunk) const;
  // Runs `prepare(chunk, change)` on the loaded chunk and commits it.
  enum class Kind { kStores, kRemoves };  // removals work on a full disk too
  template <class Prepare>
  Result<ChunkInfo> change_chunk(ChunkId id, const WriteOptions& options, Kind kind, Prepare prepare);

  // engine_commit.cc
  Result<> commit(Chunk& chunk, Change& change);
  Result<> write_index(rocksdb::WriteBatch& batch);  // a failure is for good
  void abandon(Change& change);
  bool is_settled(const State& state) const {
    return state.settled || state.generation <= synced_generation_.load(std::memory_order_acquire);
  }
  std::vector<State> fallbacks_of(const Chunk& chunk, const State& next) const;
  void settle_next(const Chunk& chunk, const Change& change, State& next, std::vector<State>& before) const;
  static void put_sum_rows(rocksdb::WriteBatch& batch, const Chunk& old, const Chunk& staged,
                           const Change& change);
  static void rewrite_sum_rows(rocksdb::WriteBatch& batch, const Chunk& old, const Chunk& staged);
  static void drop_contents(rocksdb::WriteBatch& batch, const Chunk& old, const Chunk* staged,
                            std::vector<Extent>& freed);
  static void delete_content(rocksdb::WriteBatch& batch, const ChunkKey& key, const State& state);
  void stage_redo(rocksdb::WriteBatch& batch, const Chunk& old, Chunk& staged, Change& change);
  static bool superseded(const Redo& redo, const Chunk& staged, const Change& change);
  static void apply_redo(Chunk& old, Chunk& staged, Change& change);
  void account(const Chunk& old, const Chunk* staged, std::uint64_t written_bytes);
  Result<> tidy(Chunk& chunk);

  // engine_sync.cc
  Result<> run_sync();
  Result<> checkpoint();
  void note_synced();
  Result<> drop_applied(const ChunkKey& key);
  void kick_background();
  void after_sync();
  void relieve();  // called by writers after a commit, without locks
  Result<> fail_for_good(Error error);
  void background();
  void reclaim_index_space();

  Disk& disk_;
  const std::string dir_;
  const EngineOptions options_;
  Superblock superblock_;
  std::unique_ptr<DiskLock> lock_;
  std::unique_ptr<ExtentStore> extents_;
  std::unique_ptr<Ballast> ballast_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<SpaceGauge> space_;
  // The file "synced": outside the index, how far it was synced at least. Two slots, written in turn.
  std::unique_ptr<File> note_;
  std::uint64_t noted_generation_ = 0;  // guarded by checkpoint_mutex_ once it is open
  std::uint64_t note_slot_ = 0;         // the one to write next; as well
  std::unique_ptr<GenerationGate> gate_;
  std::array<Stripe, kStripes> stripes_;

  std::atomic<std::uint64_t> synced_generation_{0};
  std::atomic<std::uint64_t> redo_sequence_{0};
  std::atomic<std::uint64_t> redo_bytes_{0};
  std::atomic<std::uint64_t> unsynced_bytes_{0};
  std::atomic<std::uint64_t> unsynced_chunks_{0};
  std::atomic<std::uint64_t> removed_inline_bytes_{0};
  std::atomic<std::int64_t> chunks_{0};
  std::atomic<bool> failed_{false};

  std::mutex sync_mutex_;  // guards syncing_
  std::condition_variable sync_done_;
  bool syncing_ = false;

  std::mutex checkpoint_mutex_;  // one checkpoint at a time

  std::mutex lists_mutex_;  // guards these
  std::vector<std::pair<std::uint64_t, ChunkKey>>
      to_tidy_;  // by generation: drop fallbacks once it is synced
  std::set<ChunkKey> redo_chunks_;
  std::vector<CorruptChunk> corrupt_;

  std::mutex background_mutex_;  // guards these
  std::condition_variable background_wake_;
  bool stopping_ = false;
  bool kicked_ = false;
  std::thread background_thread_;
};

}  // namespace cairn::disk
