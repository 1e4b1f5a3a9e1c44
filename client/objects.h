// Immutable objects: written once, by name, sealed, never changed. Thread-safe; see client.h for errors and
// deadlines.
#pragma once

#include "client/client.h"

namespace cairn {

enum class ObjectState { kPending, kSealedMemory, kSealed, kDeleted, kLost };
struct ObjectInfo {
  std::string id;  // 1 to 1,024 bytes, any bytes
  ObjectState state = ObjectState::kPending;
  std::uint64_t size = 0;
  Digest digest;
  std::int64_t created_ns = 0;
  std::int64_t sealed_ns = 0;
};

// Called with bytes done so far and in all (0: not known), from one thread at a time.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
// Fills `into` as far as it can; 0 bytes: end.
using Source = std::function<Result<std::size_t>(MutableBytes into)>;
using Sink = std::function<Result<>(Bytes piece)>;

struct PutOptions {
  std::optional<std::chrono::milliseconds> timeout;  // default: the client's
  Progress progress;
  std::string lineage;  // opaque, up to 64 KiB: what made this object
};

class Objects {
 public:
  virtual ~Objects() = default;
  // On return the bytes are sealed and synced on at least min_replicas disks. The same bytes under the same
  // id again succeed; other bytes: kConflict (both digests). kNoSpace. A put that fails leaves nothing
  // visible.
  virtual Result<ObjectInfo> put(std::string_view id, Bytes bytes, const PutOptions& options = {}) = 0;
  // Streams: bounded memory for any size. `size_hint` 0: not known.
  virtual Result<ObjectInfo> put(std::string_view id, const Source& source, std::uint64_t size_hint,
                                 const PutOptions& options = {}) = 0;
  // Whole object, verified. kNotFound, kDeleted, kLost, kNotSealed, kCorrupt.
  virtual Result<std::string> get(std::string_view id) = 0;
  virtual Result<std::string> get_range(std::string_view id, std::uint64_t offset, std::uint64_t length) = 0;
  // In order, piece by piece, chunks fetched in parallel ahead of it; verifies the digest at the end.
  virtual Result<ObjectInfo> get(std::string_view id, const Sink& sink, const Progress& progress = {}) = 0;
  virtual Result<ObjectInfo> stat(std::string_view id) = 0;
  // After `after` in byte order, at most `limit`; `done`: nothing follows.
  struct Page {
    std::vector<ObjectInfo> objects;
    bool done = false;
  };
  virtual Result<Page> list(std::string_view prefix, std::string_view after, std::uint32_t limit) = 0;
  virtual Result<> remove(std::string_view id) = 0;  // kNotFound if there is none
  // Waits until `count` (0: all) of the ids are sealed. Returns which are; kTimeout says how many.
  virtual Result<std::vector<bool>> wait(std::span<const std::string> ids, std::size_t count,
                                         std::chrono::milliseconds timeout) = 0;
};

}  // namespace cairn
