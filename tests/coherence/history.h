// What concurrent readers and writers of one register saw, and whether a single copy could have told it.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace coherence {

// One call: between `begin` and `end` (nanoseconds of one clock) it took effect. Each write writes another
// value; 0 is what the register held at first.
struct Call {
  std::int64_t begin = 0, end = 0;
  std::uint64_t value = 0;
  bool write = false;
  bool unknown = false;  // a write that failed: it may have happened, at any time from `begin` on
  // While a write of a host is under way, reads of that host may give the new value before others do, and the
  // old one after others saw the new one; -1: not so.
  int host = -1;
};

enum class Order {
  kAtomic,   // linearizable: one order for all, that keeps who ended before whom
  kRegular,  // a read gives a value that was not overwritten for sure before it began
};
// Empty: the history is right. Otherwise what is wrong with it. Atomic: the zones of Gibbons and Korach,
// "Testing Shared Memories" (1997): for registers whose writes all differ this is exact.
std::string check_register(const std::vector<Call>& calls, Order order);

}  // namespace coherence
