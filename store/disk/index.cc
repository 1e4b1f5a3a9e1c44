#include "store/disk/index.h"

#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/table_properties_collectors.h>

#include "store/disk/rocks_fs.h"

namespace cairn::disk {
namespace {

rocksdb::Options make_options(rocksdb::Env* env, std::uint64_t cache_bytes, Index::Before before) {
  rocksdb::Options options;
  options.env = env;
  options.info_log = make_rocks_logger();
  options.create_if_missing = before == Index::Before::kNothing;
  // After a power cut the log ends at the first torn record: exactly a prefix of the batches. Without one,
  // the log is as it was written, so that a bad record before its end is damage: what follows must not be
  // dropped.
  options.wal_recovery_mode = before == Index::Before::kUnsyncedIsLost
                                  ? rocksdb::WALRecoveryMode::kPointInTimeRecovery
                                  : rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.paranoid_checks = true;

  // Memory: at most three memtables, a small arena, few open files.
  options.write_buffer_size = 8 << 20;
  options.arena_block_size = 256 << 10;
  options.max_write_buffer_number = 3;
  options.min_write_buffer_number_to_merge = 1;
  options.max_total_wal_size = 64 << 20;
  options.max_open_files = 256;
  options.max_file_opening_threads = 2;
  options.max_background_jobs = 2;
  options.max_subcompactions = 1;
  options.memtable_prefix_bloom_size_ratio = 0.02;  // with whole_key_filtering: a new chunk costs no search
  options.memtable_whole_key_filtering = true;

  options.target_file_size_base = 16 << 20;
  options.max_bytes_for_level_base = 64 << 20;
  options.level_compaction_dynamic_level_bytes = true;
  options.compression = rocksdb::kNoCompression;  // checksums and file bytes: little to gain
  options.compaction_readahead_size = 1 << 20;
  options.bytes_per_sync = 1 << 20;
  options.avoid_unnecessary_blocking_io = true;
  // Removed inline chunks must give their space back without waiting for the level to fill.
  options.table_properties_collector_factories.push_back(
      rocksdb::NewCompactOnDeletionCollectorFactory(4096, 2048, 0.5));

  options.stats_dump_period_sec = 0;  // no periodic threads
  options.stats_persist_period_sec = 0;
  options.max_manifest_file_size = 4 << 20;
  options.keep_log_file_num = 1;

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(cache_bytes, 2, false, 0.5);
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));
  table.optimize_filters_for_memory = true;
  table.block_size = 8 << 10;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace

Result<std::unique_ptr<Index>> Index::open(Disk& disk, Ballast& ballast, const std::string& dir,
                                           std::uint64_t cache_bytes, Before before) {
  std::unique_ptr<Index> index(new Index());
  index->env_ = make_rocks_env(disk, ballast);
  rocksdb::Status status;
  if (before == Before::kNothing) {
    // RocksDB would make it too, after a warning that it is not there.
    status = index->env_->CreateDirIfMissing(dir);
    if (!status.ok()) return fail(from_rocks(status, "make " + dir));
  } else {
    auto current = disk.stat(dir + "/CURRENT");
    if (!current && current.error().code() == Code::kNotFound)
      return fail(Code::kCorrupt, dir + ": the index is gone");
    if (!current) return fail(current.error());
  }
  rocksdb::DB* db = nullptr;
  status = rocksdb::DB::Open(make_options(index->env_.get(), cache_bytes, before), dir, &db);
  if (!status.ok()) return fail(from_rocks(status, "open " + dir));
  index->db_.reset(db);
  return index;
}

Index::~Index() {
  if (db_ != nullptr) db_->Close().PermitUncheckedError();
}

Result<bool> Index::get(std::string_view key, rocksdb::PinnableSlice& value) {
  rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), slice(key), &value);
  if (status.ok()) return true;
  if (status.IsNotFound()) return false;
  return fail(from_rocks(status, "get"));
}

Result<> Index::write(rocksdb::WriteBatch& batch) {
  rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &batch);
  if (status.ok()) return {};
  return fail(from_rocks(status, "write"));
}

Result<> Index::sync() {
  rocksdb::Status status = db_->SyncWAL();
  if (!status.ok()) return fail(from_rocks(status, "sync"));
  return {};
}

std::unique_ptr<rocksdb::Iterator> Index::iterate(const rocksdb::Slice* end, bool fill_cache) {
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = end;
  options.fill_cache = fill_cache;
  if (!fill_cache) options.readahead_size = 256 << 10;
  return std::unique_ptr<rocksdb::Iterator>(db_->NewIterator(options));
}

Result<> Index::check(const rocksdb::Iterator& iterator) {
  if (iterator.status().ok()) return {};
  return fail(from_rocks(iterator.status(), "scan"));
}

std::uint64_t Index::bytes() {
  std::uint64_t files = 0;
  std::uint64_t memory = 0;
  db_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &files);
  db_->GetIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &memory);
  return files + memory;
}

Result<> Index::compact(std::string_view begin, std::string_view end) {
  rocksdb::Slice from = slice(begin);
  rocksdb::Slice to = slice(end);
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  rocksdb::Status status = db_->CompactRange(options, &from, &to);
  if (!status.ok()) return fail(from_rocks(status, "compact"));
  return {};
}

}  // namespace cairn::disk
