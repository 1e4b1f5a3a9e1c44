// A set of disjoint half-open ranges of integers: holes, chunks written, bytes that are dirty. Not
// thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

namespace cairn::client {

struct Range {
  std::uint64_t from = 0;
  std::uint64_t to = 0;  // exclusive
  auto operator<=>(const Range&) const = default;
  bool empty() const { return from >= to; }
};

class RangeSet {
 public:
  void add(std::uint64_t from, std::uint64_t to) {
    if (from >= to) return;
    auto it = ranges_.upper_bound(from);
    if (it != ranges_.begin() && std::prev(it)->second >= from) --it;
    while (it != ranges_.end() && it->first <= to) {
      from = std::min(from, it->first);
      to = std::max(to, it->second);
      it = ranges_.erase(it);
    }
    ranges_.emplace(from, to);
  }
  void remove(std::uint64_t from, std::uint64_t to) {
    if (from >= to) return;
    auto it = ranges_.upper_bound(from);
    if (it != ranges_.begin()) --it;
    while (it != ranges_.end() && it->first < to) {
      const auto [begin, end] = *it;
      if (end <= from) {
        ++it;
        continue;
      }
      it = ranges_.erase(it);
      if (begin < from) ranges_.emplace(begin, from);
      if (end > to) it = ranges_.emplace(to, end).first;
    }
  }
  bool contains(std::uint64_t value) const {
    auto it = ranges_.upper_bound(value);
    return it != ranges_.begin() && std::prev(it)->second > value;
  }
  // The end of the range that holds `value`.
  std::uint64_t end_of(std::uint64_t value) const { return std::prev(ranges_.upper_bound(value))->second; }
  // How many values below `value` are in the set.
  std::uint64_t count_below(std::uint64_t value) const {
    std::uint64_t count = 0;
    for (const auto& [from, to] : ranges_) {
      if (from >= value) break;
      count += std::min(to, value) - from;
    }
    return count;
  }
  bool empty() const { return ranges_.empty(); }
  void clear() { ranges_.clear(); }
  std::vector<Range> list() const {
    std::vector<Range> out;
    for (const auto& [from, to] : ranges_) out.push_back({from, to});
    return out;
  }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // from -> to
};

}  // namespace cairn::client
