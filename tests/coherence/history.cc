#include "history.h"

#include <algorithm>
#include <map>

namespace coherence {
namespace {

constexpr std::int64_t kEver = std::numeric_limits<std::int64_t>::max();

// A written value: its write, and what is known from its readers.
struct Written {
  std::uint64_t value = 0;
  std::int64_t write_begin = 0, write_end = 0;
  std::int64_t first_end = 0;   // the earliest end of its write and reads: by then it had been written
  std::int64_t last_begin = 0;  // the latest begin of these: until then it was there
  bool read = false;
};

std::string at(std::int64_t begin, std::int64_t end) {
  return "[" + std::to_string(begin / 1000) + ", " + (end == kEver ? "?" : std::to_string(end / 1000)) +
         "] us";
}

std::string check_atomic(const std::vector<Written>& values) {
  // Forward: the value was there from first_end to last_begin for sure. No two such may overlap, and no value
  // may come and go within such a time of another.
  std::vector<const Written*> forward;
  for (const Written& value : values)
    if (value.first_end < value.last_begin) forward.push_back(&value);
  std::ranges::sort(forward, {}, [](const Written* value) { return value->first_end; });
  auto name = [](const Written& value) {
    return std::to_string(value.value) + " written in " + at(value.write_begin, value.write_end);
  };
  for (std::size_t i = 1; i < forward.size(); ++i) {
    if (forward[i]->first_end < forward[i - 1]->last_begin)
      return name(*forward[i - 1]) + " was read until " + std::to_string(forward[i - 1]->last_begin / 1000) +
             ", though " + name(*forward[i]) + " had been seen by " +
             std::to_string(forward[i]->first_end / 1000) + ", and later too";
  }
  for (const Written& value : values) {
    if (value.first_end < value.last_begin) continue;
    auto after = std::ranges::upper_bound(forward, value.last_begin, {},
                                          [](const Written* other) { return other->first_end; });
    if (after == forward.begin()) continue;
    const Written& around = **--after;
    if (around.first_end < value.last_begin && value.first_end < around.last_begin)
      return name(value) + " came and went while " + name(around) + " was there all the time from " +
             std::to_string(around.first_end / 1000) + " to " + std::to_string(around.last_begin / 1000);
  }
  return "";
}

}  // namespace

std::string check_register(const std::vector<Call>& calls, Order order) {
  std::map<std::uint64_t, Written> values;
  values[0] = {0, 0, 0, 0, 0, false};
  for (const Call& call : calls) {
    if (!call.write) continue;
    const std::int64_t end = call.unknown ? kEver : call.end;
    values[call.value] = {call.value, call.begin, end, end, call.begin, false};
  }
  // For the regular check: until when a value is known to have been written over.
  std::vector<std::pair<std::int64_t, std::int64_t>> done;  // (end, latest begin so far) of writes that ended
  for (const Call& call : calls)
    if (call.write && !call.unknown) done.emplace_back(call.end, call.begin);
  std::ranges::sort(done);
  for (std::size_t i = 1; i < done.size(); ++i) done[i].second = std::max(done[i].second, done[i - 1].second);
  for (const Call& call : calls) {
    if (call.write) continue;
    const auto found = values.find(call.value);
    if (found == values.end())
      return "a read in " + at(call.begin, call.end) + " gave " + std::to_string(call.value) +
             ", which nobody wrote";
    Written& value = found->second;
    if (call.end < value.write_begin)
      return "a read in " + at(call.begin, call.end) + " gave " + std::to_string(call.value) +
             ", which was written later, in " + at(value.write_begin, value.write_end);
    auto before = std::ranges::lower_bound(done, std::pair(call.begin, std::int64_t{0}));
    if (before != done.begin() && value.write_end < std::prev(before)->second)
      return "a read in " + at(call.begin, call.end) + " gave " + std::to_string(call.value) +
             " (written in " + at(value.write_begin, value.write_end) +
             "), though another write that began at " + std::to_string(std::prev(before)->second / 1000) +
             " us had ended before the read";
    value.read = true;
    const bool beside = std::ranges::any_of(calls, [&](const Call& other) {
      return call.host >= 0 && other.write && other.host == call.host && other.begin < call.end &&
             (other.unknown || call.begin < other.end);
    });
    if (beside) continue;
    value.first_end = std::min(value.first_end, call.end);
    value.last_begin = std::max(value.last_begin, call.begin);
  }
  if (order == Order::kRegular) return "";
  std::vector<Written> list;
  for (const auto& [number, value] : values)
    if (value.read || value.write_end != kEver) list.push_back(value);
  return check_atomic(list);
}

}  // namespace coherence
