// What a client leaves that dies at any moment: a stream of changes by one process, noted in a log on another
// file system, and a check of what is found afterwards.
#pragma once

#include <cstdint>
#include <string>

namespace coherence {

// Makes changes in `dir`, which is empty, until something fails (the mount died). Each is noted in `log`.
int crash_work(const std::string& dir, const std::string& log, std::uint64_t seed);
// What is in `dir` is what a prefix of these changes leaves: it holds at least all up to the last fsync of a
// directory, and every byte that was fsynced; entries are whole.
int crash_check(const std::string& dir, const std::string& log, std::uint64_t seed);

}  // namespace coherence
