// The byte ranges of one file that one owner has locked: what F_SETLK does to them. Ranges of one type that
// touch are one; a new lock takes the place of what it covers, and cuts or splits what it covers in part. A
// plain value, not thread-safe. Both ends of the wire keep their locks so: the server to find conflicts, the
// client to name them again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace cairn {

enum class LockType : std::uint8_t { kNone = 0, kRead = 1, kWrite = 2 };

// Whether two owners may not have them at the same time.
constexpr bool locks_conflict(LockType a, LockType b) {
  return a != LockType::kNone && b != LockType::kNone && (a == LockType::kWrite || b == LockType::kWrite);
}

// [first, last], both included, so that the last byte of a 64-bit file can be locked.
struct LockRange {
  std::uint64_t first = 0;
  std::uint64_t last = UINT64_MAX;
  bool operator==(const LockRange&) const = default;
};
constexpr LockRange kWholeFile{};

class LockRanges {
 public:
  struct Part {
    LockRange range;
    LockType type = LockType::kNone;
    bool operator==(const Part&) const = default;
  };

  // Afterwards exactly `range` has that type; kNone unlocks it. range.first <= range.last.
  void set(LockRange range, LockType type);
  // The lowest part that another owner's `wanted` on `range` would conflict with.
  std::optional<Part> conflict(LockRange range, LockType wanted) const;
  // In order, disjoint, none of type kNone.
  std::vector<Part> parts() const;
  bool empty() const { return parts_.empty(); }
  std::size_t count() const { return parts_.size(); }

 private:
  struct End {
    std::uint64_t last;
    LockType type;
  };
  using Parts = std::map<std::uint64_t, End>;  // by first byte
  // So that no part has bytes on both sides of the border between `at - 1` and `at`.
  void split(std::uint64_t at);
  Parts parts_;
};

}  // namespace cairn
