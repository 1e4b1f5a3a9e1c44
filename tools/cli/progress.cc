#include "tools/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

namespace cairn::cli {

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 6> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_seconds(std::uint64_t seconds) {
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {:02} s", seconds / 60, seconds % 60);
  return fmt::format("{} h {:02} min", seconds / 3600, seconds / 60 % 60);
}

Progress::Progress(std::string label)
    : label_(std::move(label)),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()) {}
Progress::~Progress() {
  finish();
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  done_ = done;
  total_ = total;
  auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  draw(done, total);
}

void Progress::finish() {
  if (!drawn_) return;
  draw(done_, total_);
  std::fputc('\n', stderr);
  drawn_ = false;
}

void Progress::draw(std::uint64_t done, std::uint64_t total) {
  drawn_ = true;
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string line = label_ + " ";
  if (total > 0) {
    constexpr std::size_t kWidth = 24;
    double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    auto filled = static_cast<std::size_t>(share * kWidth);
    line +=
        fmt::format("[{}{}] {:3.0f} %  {} of {}", std::string(filled, '#'), std::string(kWidth - filled, '.'),
                    share * 100, human_bytes(done), human_bytes(total));
    if (done < total && rate > 0)
      line += "  " + human_seconds(static_cast<std::uint64_t>(static_cast<double>(total - done) / rate) + 1) +
              " left";
  } else {
    line += human_bytes(done);
  }
  line += fmt::format("  {}/s", human_bytes(static_cast<std::uint64_t>(rate)));
  fmt::print(stderr, "\r\033[K{}", line);
  std::fflush(stderr);
}

}  // namespace cairn::cli
