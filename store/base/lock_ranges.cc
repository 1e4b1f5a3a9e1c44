#include "store/base/lock_ranges.h"

#include <iterator>

namespace cairn {

void LockRanges::split(std::uint64_t at) {
  auto it = parts_.lower_bound(at);
  if (it == parts_.begin()) return;
  --it;
  End& left = it->second;
  if (left.last < at) return;
  parts_.emplace_hint(std::next(it), at, left);
  left.last = at - 1;
}

void LockRanges::set(LockRange range, LockType type) {
  split(range.first);
  if (range.last != UINT64_MAX) split(range.last + 1);
  auto it = parts_.lower_bound(range.first);
  while (it != parts_.end() && it->first <= range.last) it = parts_.erase(it);
  if (type == LockType::kNone) return;

  it = parts_.emplace_hint(it, range.first, End{range.last, type});
  if (auto next = std::next(it); next != parts_.end() && range.last != UINT64_MAX &&
                                 next->first == range.last + 1 && next->second.type == type) {
    it->second.last = next->second.last;
    parts_.erase(next);
  }
  if (it == parts_.begin()) return;
  if (auto before = std::prev(it); before->second.last + 1 == it->first && before->second.type == type) {
    before->second.last = it->second.last;
    parts_.erase(it);
  }
}

std::optional<LockRanges::Part> LockRanges::conflict(LockRange range, LockType wanted) const {
  auto it = parts_.upper_bound(range.first);
  if (it != parts_.begin() && std::prev(it)->second.last >= range.first) --it;
  for (; it != parts_.end() && it->first <= range.last; ++it) {
    if (locks_conflict(it->second.type, wanted)) return Part{{it->first, it->second.last}, it->second.type};
  }
  return std::nullopt;
}

std::vector<LockRanges::Part> LockRanges::parts() const {
  std::vector<Part> out;
  out.reserve(parts_.size());
  for (const auto& [first, end] : parts_) out.push_back({{first, end.last}, end.type});
  return out;
}

}  // namespace cairn
