// Threads on several mounts at once, whose histories are checked afterwards: registers in files, in
// attributes and behind names, appends, exclusive creation, locks, listings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace coherence {

struct RaceOptions {
  std::vector<std::string> mounts;
  std::uint64_t seed = 1;
  double seconds = 10;            // all rounds together
  int threads = 2;                // on each mount
  std::vector<std::string> only;  // of the workloads; empty: all in turn
  // Outages may last longer than the deadline of the mounts: calls may fail with ETIMEDOUT or EIO and then
  // may have happened or not; what was not synced may be lost. Workloads that can't tell are left out.
  bool may_fail = false;
};
int run_races(const RaceOptions& options);  // 0: nothing wrong

}  // namespace coherence
