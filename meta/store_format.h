// What makes a store ours: format version, cluster id, era, feature level, and whether it was closed in good
// order. Synchronous, before the executor starts.
#pragma once

#include <string>
#include <utility>

#include "meta/kv_store.h"
#include "store/base/ids.h"
#include "store/base/rng.h"

namespace cairn::meta {

constexpr std::uint32_t kStoreFormat = 1;
constexpr std::uint32_t kFeatureLevel = 1;

struct StoreOptions {
  bool init = false;     // an empty store is formatted; otherwise refused
  bool salvage = false;  // used although it was found to have gone back in time (meta/journal_guard.h)
  ClusterId expected;    // none: any
  std::string boot_id;   // of this machine's boot
  std::uint32_t root_uid = 0, root_gid = 0, root_mode = 0755;  // of a new root directory
  std::int64_t wall_ns = 0;
};

struct StoreIdentity {
  ClusterId cluster;
  Era era;
  std::uint32_t feature_level = 0;
  bool formatted = false;     // just now
  bool end_sessions = false;  // the machine went down without a clean stop: the era was raised
};

// kNeedsOperator: empty and not to be formatted, or not ours, or it went back in time. kWrongCluster.
// kVersionMismatch: a newer program wrote it. On return the store is marked as in use, durably.
Result<StoreIdentity> open_store(KvStore& kv, const StoreOptions& options, Rng& rng);
// After the last write of a clean stop.
Result<> mark_clean(KvStore& kv);

// The directory's lock: one server at a time. Held until destroyed.
class DirectoryLock {
 public:
  // Makes `directory` if missing. kLocked names the process; kNeedsOperator: not empty, and not a metadata
  // directory.
  static Result<DirectoryLock> take(const std::string& directory);
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

Result<std::string> machine_boot_id();

}  // namespace cairn::meta
