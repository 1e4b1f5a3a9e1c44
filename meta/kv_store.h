// KvStore: an ordered map from byte strings to byte strings on which the metadata lives. Two implementations,
// one test suite: RocksKvStore (production) and MapKvStore (tests, simulation: it can lose what was not
// synced).
//
// Threading: get, scan and write are called by one thread at a time (the executor); sync() by another at the
// same time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace cairn::meta {

struct KvWrite {
  std::string key;
  std::optional<std::string> value;  // empty: delete
};
using KvBatch = std::vector<KvWrite>;  // applied in order, all or nothing

class KvStore {
 public:
  virtual ~KvStore() = default;
  virtual Result<std::optional<std::string>> get(std::string_view key) const = 0;
  // Keys that begin with `prefix`, from `from` (empty: the first) upward, in order, until `visit` returns
  // false.
  virtual Result<> scan(
      std::string_view prefix, std::string_view from,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) const = 0;
  // Atomic. On return the kernel has it: it survives the end of this process, not of the machine.
  virtual Result<> write(const KvBatch& batch) = 0;
  // On return all writes that returned before the call survive a power cut. After a failure the store must
  // not be used.
  virtual Result<> sync() = 0;
  // The file system is full and the store lives on what it had set aside for that: only what is needed to get
  // out of it should be written. Thread-safe.
  virtual bool full() const { return false; }
  // Sets it aside again if it can: true, then full() is false. May block on the disk.
  virtual bool leave_full() { return !full(); }
};

struct RocksKvConfig {
  std::uint64_t block_cache_bytes = 64 << 20;
  std::uint64_t write_buffer_bytes = 16 << 20;  // two of them
  std::uint64_t row_cache_bytes = 16 << 20;     // rows read or written lately
  std::uint64_t ballast_bytes = 64 << 20;       // set aside for a full file system
  // A journal damaged before its end is read up to the damage. Otherwise refused: what is damaged, and all
  // behind it, may have been synced.
  bool salvage = false;
};

// Opens `directory` (made if missing). kLocked names the process that has it open; kIo, kCorrupt: RocksDB's
// message.
Result<std::unique_ptr<KvStore>> open_rocks_kv(const std::string& directory,
                                               const RocksKvConfig& config = {});

// In memory. A crash is simulated by taking `after_kill()` or `after_power_cut()` as the content of the next
// store.
class MapKvStore final : public KvStore {
 public:
  using Content = std::vector<std::pair<std::string, std::string>>;
  MapKvStore();
  explicit MapKvStore(const Content& content);
  ~MapKvStore() override;
  Result<std::optional<std::string>> get(std::string_view key) const override;
  Result<> scan(std::string_view prefix, std::string_view from,
                const std::function<bool(std::string_view, std::string_view)>& visit) const override;
  Result<> write(const KvBatch& batch) override;
  Result<> sync() override;

  // The following are thread-safe.
  Content after_kill() const;                                    // all that was written
  Content after_power_cut(std::size_t unsynced_kept = 0) const;  // what was synced, and so many batches more
  std::size_t unsynced() const;                                  // batches written since the last sync
  // The write that comes after `writes` more fails, and all after it (kIo): a disk that stops.
  void fail_after(std::size_t writes);
  void set_full(bool full) { full_ = full; }
  bool full() const override { return full_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::atomic<bool> full_{false};
};

}  // namespace cairn::meta
