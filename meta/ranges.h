// Sorted, disjoint, non-adjacent half-open ranges of chunk indices: the holes of a file, what a layer owns.
#pragma once

#include <cstdint>
#include <vector>

namespace cairn::meta {

struct Range {
  std::uint64_t from = 0;
  std::uint64_t to = 0;  // not included
  bool operator==(const Range&) const = default;
  bool empty() const { return from >= to; }
};
using Ranges = std::vector<Range>;

void add_range(Ranges& ranges, Range added);
void subtract_range(Ranges& ranges, Range removed);
bool contains(const Ranges& ranges, std::uint64_t value);
// The parts of `ranges` within `window`.
Ranges intersection(const Ranges& ranges, Range window);
// Sorted, not empty, not touching: what a decoder accepts.
bool well_formed(const Ranges& ranges);

}  // namespace cairn::meta
