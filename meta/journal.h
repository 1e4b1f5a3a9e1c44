// The journal: the sequence of batches that made the metadata what it is. An entry is
//   (era, term, index, checksum of the entry before, puts and deletes), at most kEntryBytesMax.
// Accepted: it will be applied unless the machine loses power; synced: it survives that too. In a later form
// a quorum accepts entries and they are applied afterwards; in the local form RocksDB's WAL is the journal,
// and one write both accepts and applies an entry together with the position (KeyPrefix::kApplied).
#pragma once

#include <atomic>
#include <memory>

#include "meta/kv_store.h"
#include "store/base/ids.h"

namespace cairn::meta {

constexpr std::size_t kEntryBytesMax = 512 * 1024;  // keys and values
std::size_t entry_bytes(const KvWrite& write);

class Journal {
 public:
  virtual ~Journal() = default;
  // [executor] Accepts and applies one entry. After an error nothing more may be appended: the server must
  // stop.
  virtual Result<JournalPosition> append(KvBatch batch) = 0;
  // Any thread, beside append(). Everything accepted before the call is synced; returns the position it
  // reached.
  virtual Result<JournalPosition> sync() = 0;
  virtual JournalPosition accepted() const = 0;  // thread-safe
};

// What kApplied holds: little-endian, version u8 | era u16 | term u64 | index u64 | checksum u64.
struct AppliedRecord {
  JournalPosition position;
  std::uint64_t checksum = 0;  // of the last entry
  std::string encode() const;
  static Result<AppliedRecord> decode(std::string_view bytes);
};
std::string applied_key();
// That of the last entry in `kv`; none: the first one.
Result<AppliedRecord> last_applied(const KvStore& kv);

// Goes on after the position that `kv` holds. `era` is not below that of the last entry.
Result<std::unique_ptr<Journal>> open_local_journal(KvStore& kv, Era era);

}  // namespace cairn::meta
