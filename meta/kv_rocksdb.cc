#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "meta/kv_store.h"
#include "meta/row_cache.h"
#include "store/base/log.h"
#include "store/disk/rocks_fs.h"

namespace cairn::meta {

namespace {

Result<> checked(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return {};
  const Code code = status.IsCorruption() ? Code::kCorrupt : status.IsNoSpace() ? Code::kNoSpace : Code::kIo;
  return fail(code, std::string(what) + ": " + status.ToString());
}
rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}

// What RocksDB stands on. RocksDB does not survive a failed write of its log (Debian's aborts when the log is
// touched again), so it shall not see a full disk: see store/disk/ballast.h.
struct Ground {
  disk::PosixDisk files;
  std::unique_ptr<disk::DiskLock> lock;
  std::unique_ptr<disk::Ballast> ballast;
  std::unique_ptr<rocksdb::Env> env;
};

class RocksKvStore final : public KvStore {
 public:
  RocksKvStore(std::unique_ptr<Ground> ground, std::unique_ptr<rocksdb::DB> db, std::string directory,
               std::uint64_t row_cache_bytes)
      : ground_(std::move(ground)),
        db_(std::move(db)),
        directory_(std::move(directory)),
        rows_(row_cache_bytes) {}
  ~RocksKvStore() override {
    // The WAL holds everything: nothing to flush. A failed close leaves nothing to do but say so at the next
    // open.
    db_->Close().PermitUncheckedError();
  }

  Result<std::optional<std::string>> get(std::string_view key) const override {
    if (const auto* known = rows_.find(key)) return *known;
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = db_->Get({}, db_->DefaultColumnFamily(), slice(key), &value);
    std::optional<std::string> row;
    if (!status.IsNotFound()) {
      TRYV(checked(status, "metadata store " + directory_));
      row = value.ToString();
    }
    rows_.set(key, row);
    return row;
  }

  Result<> scan(std::string_view prefix, std::string_view from,
                const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    rocksdb::ReadOptions options;
    const std::string end = after_prefix(prefix);
    const rocksdb::Slice end_slice = slice(end);
    if (!end.empty()) options.iterate_upper_bound = &end_slice;
    std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
    for (it->Seek(slice(from > prefix ? from : prefix)); it->Valid(); it->Next()) {
      if (!visit(it->key().ToStringView(), it->value().ToStringView())) break;
    }
    return checked(it->status(), "metadata store " + directory_);
  }

  Result<> write(const KvBatch& batch) override {
    rocksdb::WriteBatch out;
    for (const KvWrite& write : batch) {
      TRYV(
          checked(write.value ? out.Put(slice(write.key), slice(*write.value)) : out.Delete(slice(write.key)),
                  "metadata batch"));
    }
    const rocksdb::Status status = db_->Write({}, &out);
    if (!status.ok()) rows_.clear();  // what is stored now is not known
    TRYV(checked(status, "metadata journal in " + directory_));
    for (const KvWrite& write : batch) rows_.set(write.key, write.value);
    return {};
  }

  // SyncWAL runs beside writers (they only wait when a log file is being replaced).
  Result<> sync() override {
    return checked(db_->SyncWAL(), "sync of the metadata journal in " + directory_);
  }

  bool full() const override { return !ground_->ballast->held(); }
  bool leave_full() override {
    if (!full()) return true;
    if (!ground_->ballast->take()) return false;
    log_warn("file_system_has_space_again", "directory={}", directory_);
    return true;
  }

 private:
  // The first key after all that begin with `prefix`; empty: there is none.
  static std::string after_prefix(std::string_view prefix) {
    std::string end(prefix);
    while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
    if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
    return end;
  }

  std::unique_ptr<Ground> ground_;  // outlives the database
  std::unique_ptr<rocksdb::DB> db_;
  std::string directory_;
  mutable RowCache rows_;  // used by one thread at a time, as get and write are
};

// A power cut may leave the last entry incomplete. Damage before the end is an error: it may be in entries
// that were synced, and stopping there without a word would take them back. Only reads.
Result<> check_log(rocksdb::Options options, const std::string& directory) {
  if (!options.env->FileExists(directory + "/CURRENT").ok()) return {};
  options.create_if_missing = false;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  rocksdb::DB* raw = nullptr;
  auto opened =
      checked(rocksdb::DB::OpenForReadOnly(options, directory, &raw), "metadata store " + directory);
  const std::unique_ptr<rocksdb::DB> db(raw);
  if (!opened && opened.error().code() == Code::kCorrupt)
    return fail(
        opened.error().with("the metadata is damaged. Put a good copy of data_dir in its place; or, if the "
                            "machine lost power and "
                            "the damage is in what was not synced yet, run 'cairn-meta --salvage' once to go "
                            "on with what is left "
                            "(the chunkservers tell if anything that was synced is missing)"));
  return opened;
}

}  // namespace

Result<std::unique_ptr<KvStore>> open_rocks_kv(const std::string& directory, const RocksKvConfig& config) {
  auto ground = std::make_unique<Ground>();
  TRYV(ground->files.make_dir(directory));
  TRY(ground->lock, ground->files.lock(directory + "/LOCK"));
  TRY(ground->ballast, disk::Ballast::open(ground->files, directory + "/ballast", config.ballast_bytes));
  ground->env = disk::make_rocks_env(ground->files, *ground->ballast);
  rocksdb::Options options;
  options.env = ground->env.get();
  options.info_log = disk::make_rocks_logger();
  options.create_if_missing = true;
  options.write_buffer_size = config.write_buffer_bytes;
  options.max_write_buffer_number = 2;
  options.max_background_jobs = 2;
  options.max_open_files = 256;
  options.allow_concurrent_memtable_write = false;  // one writer
  options.enable_pipelined_write = false;
  // Keys are (kind, growing id): a new row of a kind mostly comes right behind the last one.
  options.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(1));
  options.memtable_whole_key_filtering = true;
  options.memtable_prefix_bloom_size_ratio = 0.05;  // many rows are asked for that do not exist
  options.compression = rocksdb::kLZ4Compression;
  options.stats_dump_period_sec = 0;
  options.paranoid_checks = true;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(config.block_cache_bytes);
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  if (!config.salvage) TRYV(check_log(options, directory));
  // Behind the check. Replays up to the first gap, which a power cut may leave between two log files.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::DB* raw = nullptr;
  TRYV(checked(rocksdb::DB::Open(options, directory, &raw), "metadata store " + directory));
  std::unique_ptr<rocksdb::DB> db(raw);
  return std::make_unique<RocksKvStore>(std::move(ground), std::move(db), directory, config.row_cache_bytes);
}

}  // namespace cairn::meta
