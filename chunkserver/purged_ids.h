// Data ids purged lately: a copy that was under way when its data id was purged, or whose source is behind
// with its orders, must not bring a chunk back. The latest are kept with the target's values, so that a
// restart does not forget. Data ids are never reused. Memory: 40 bytes each. Thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_set>

#include "store/base/ids.h"
#include "store/base/result.h"

namespace cairn::chunkserver {

class PurgedIds {
 public:
  static constexpr std::size_t kMax = 256 << 10;
  static constexpr std::size_t kKept = 8 << 10;  // on disk

  void add(DataId data);
  bool contains(DataId data) const;
  bool full() const;  // from now on each one added makes the oldest forgotten
  // value = version u8 (1) | sequence u64 | count u32 | count * data id u64; `sequence`: purges up to it are
  // done
  std::string encode(std::uint64_t sequence) const;
  Result<std::uint64_t> restore(std::string_view bytes);

 private:
  mutable std::mutex mutex_;
  std::deque<DataId> order_;        // oldest first; guarded by mutex_
  std::unordered_set<DataId> ids_;  // guarded by mutex_
};

}  // namespace cairn::chunkserver
