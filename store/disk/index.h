// The target's RocksDB: opened for small memory, errors as Result. Keys: index_keys.h.
// One column family, so that after a power cut exactly a prefix of the batches is there; a batch is atomic.
// Thread-safe.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "store/disk/ballast.h"
#include "store/disk/disk.h"

namespace cairn::disk {

inline rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}
inline std::string_view view(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

class Index {
 public:
  // How the log may end: what the last user of the target left.
  enum class Before {
    kNothing,         // a target just formatted: the index is made
    kWholeLog,        // a clean close, or the process died: only the last record may be cut short
    kUnsyncedIsLost,  // the machine stopped: the log ends at its first torn record
  };
  // kCorrupt: there is none though there should be, or it is damaged. Nothing of it was changed then.
  static Result<std::unique_ptr<Index>> open(Disk& disk, Ballast& ballast, const std::string& dir,
                                             std::uint64_t cache_bytes, Before before);
  ~Index();

  // False if there is no such key. kCorrupt: RocksDB found damage; kIo.
  Result<bool> get(std::string_view key, rocksdb::PinnableSlice& value);
  // All or nothing; in the kernel's hands on return. A failure is final: RocksDB takes no more writes.
  Result<> write(rocksdb::WriteBatch& batch);
  // All batches whose write() returned before survive a power cut. Writers go on meanwhile. A failure is
  // final.
  Result<> sync();
  // A consistent view of [begin, end). `end` must outlive the iterator.
  std::unique_ptr<rocksdb::Iterator> iterate(const rocksdb::Slice* end, bool fill_cache);
  static Result<> check(const rocksdb::Iterator& iterator);

  // Bytes of its files (SSTs, and what the log holds of memtables).
  std::uint64_t bytes();
  // Rewrites a key range so that removed rows give their space back. Slow.
  Result<> compact(std::string_view begin, std::string_view end);

 private:
  Index() = default;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace cairn::disk
