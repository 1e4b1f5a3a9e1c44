#include "meta/ranges.h"

#include <algorithm>

namespace cairn::meta {

void add_range(Ranges& ranges, Range added) {
  if (added.empty()) return;
  auto first = std::lower_bound(ranges.begin(), ranges.end(), added.from,
                                [](const Range& r, std::uint64_t from) { return r.to < from; });
  auto last = first;
  for (; last != ranges.end() && last->from <= added.to; ++last) {
    added.from = std::min(added.from, last->from);
    added.to = std::max(added.to, last->to);
  }
  if (first == last) {
    ranges.insert(first, added);
  } else {
    *first = added;
    ranges.erase(first + 1, last);
  }
}

void subtract_range(Ranges& ranges, Range removed) {
  if (removed.empty()) return;
  auto first = std::lower_bound(ranges.begin(), ranges.end(), removed.from,
                                [](const Range& r, std::uint64_t from) { return r.to <= from; });
  if (first == ranges.end() || first->from >= removed.to) return;
  auto last = first;
  Ranges left;
  for (; last != ranges.end() && last->from < removed.to; ++last) {
    if (last->from < removed.from) left.push_back({last->from, removed.from});
    if (last->to > removed.to) left.push_back({removed.to, last->to});
  }
  const auto at = ranges.erase(first, last);
  ranges.insert(at, left.begin(), left.end());
}

bool contains(const Ranges& ranges, std::uint64_t value) {
  auto next = std::upper_bound(ranges.begin(), ranges.end(), value,
                               [](std::uint64_t v, const Range& r) { return v < r.to; });
  return next != ranges.end() && next->from <= value;
}

Ranges intersection(const Ranges& ranges, Range window) {
  Ranges out;
  auto at = std::lower_bound(ranges.begin(), ranges.end(), window.from,
                             [](const Range& r, std::uint64_t from) { return r.to <= from; });
  for (; at != ranges.end() && at->from < window.to; ++at)
    out.push_back({std::max(at->from, window.from), std::min(at->to, window.to)});
  return out;
}

bool well_formed(const Ranges& ranges) {
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].empty()) return false;
    if (i > 0 && ranges[i].from <= ranges[i - 1].to) return false;
  }
  return true;
}

}  // namespace cairn::meta
