// One line on the terminal that shows how far a long transfer or repair is. Debian 12 has no C++ library for
// this, so it is the smallest that does: bytes, share, rate, time left. Silent unless stderr is a terminal.
// Not thread-safe: update() from one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace cairn::cli {

std::string human_bytes(std::uint64_t bytes);      // "1.5 GiB"
std::string human_seconds(std::uint64_t seconds);  // "2 min 05 s"

class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();  // ends the line if one was begun
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(std::uint64_t done,
              std::uint64_t total);  // total 0: not known. Draws at most ten times a second
  void finish();

 private:
  void draw(std::uint64_t done, std::uint64_t total);
  std::string label_;
  bool terminal_;
  bool drawn_ = false;
  std::uint64_t done_ = 0, total_ = 0;
  std::chrono::steady_clock::time_point start_, last_{};
};

}  // namespace cairn::cli
