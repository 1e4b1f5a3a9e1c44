#include "tools/cli/cluster_path.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "fuse/mount_table.h"

namespace cairn::cli {
namespace {
namespace fs = std::filesystem;

std::string without_trailing_slash(const fs::path& path) {
  std::string text = path.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

// The innermost Cairn mount above `path`.
std::optional<ClusterPath> below_mount(const std::string& path, const std::vector<fuse::Mounted>& mounts) {
  const fuse::Mounted* best = nullptr;
  for (const fuse::Mounted& mounted : mounts) {
    const std::string& point = mounted.mountpoint;
    const bool above =
        point == "/" || path == point || (path.starts_with(point) && path[point.size()] == '/');
    if (above && (best == nullptr || point.size() >= best->mountpoint.size())) best = &mounted;
  }
  if (best == nullptr || best->type != fuse::kFsType) return std::nullopt;
  std::string rest = best->mountpoint == "/" ? path : path.substr(best->mountpoint.size());
  return ClusterPath{rest.empty() ? "/" : std::move(rest), best->source};
}

// The number, and what stands behind it.
std::optional<std::pair<double, std::string>> number_and_unit(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !(value >= 0)) return std::nullopt;
  return std::pair(value, std::string(end, text.data() + text.size()));
}

}  // namespace

Result<ClusterPath> cluster_path(const std::string& given) {
  if (given.empty()) return fail(Code::kConfig, "a path is empty");
  std::error_code error;
  const fs::path absolute = fs::absolute(given, error).lexically_normal();
  if (error) return fail(Code::kIo, fmt::format("{}: {}", given, error.message()));
  std::ifstream file("/proc/self/mountinfo");
  const std::string table{std::istreambuf_iterator<char>(file), {}};
  const auto mounts = fuse::parse_mountinfo(table);
  const std::string lexical = without_trailing_slash(absolute);
  if (auto found = below_mount(lexical, mounts)) return *found;
  // Through a symbolic link outside of the mount, perhaps.
  const fs::path parent = fs::canonical(fs::path(lexical).parent_path(), error);
  if (!error && lexical != "/") {
    if (auto found = below_mount(without_trailing_slash(parent / fs::path(lexical).filename()), mounts))
      return *found;
  }
  if (given.front() == '/') return ClusterPath{lexical, {}};
  return fail(Code::kConfig,
              fmt::format("'{}' is not below a Cairn mount: give a path that is, or an absolute "
                          "path in the Cairn file system",
                          given));
}

Result<std::uint64_t> parse_bytes(const std::string& text) {
  const auto parsed = number_and_unit(text);
  constexpr std::string_view kUnits = "KMGTP";
  if (parsed) {
    auto [value, unit] = *parsed;
    if (unit.ends_with("iB")) unit.resize(unit.size() - 2);
    int power = 0;
    if (unit.size() == 1) power = static_cast<int>(kUnits.find(unit[0]) + 1);  // npos + 1 is 0
    for (int i = 0; i < power; ++i) value *= 1024;
    const bool known = unit.empty() || power > 0;
    if (known && value < 9e18) return static_cast<std::uint64_t>(value);
  }
  return fail(Code::kConfig,
              fmt::format("'{}' is no size: give bytes, or a number with K, M, G, T or P", text));
}

Result<std::int64_t> parse_duration(const std::string& text) {
  const auto parsed = number_and_unit(text);
  if (parsed) {
    const auto& [value, unit] = *parsed;
    const double seconds = unit == "s"   ? 1
                           : unit == "m" ? 60
                           : unit == "h" ? 3600
                           : unit == "d" ? 86400
                           : unit == "w" ? 7 * 86400
                                         : 0;
    if (value == 0 && unit.empty()) return 0;
    if (seconds > 0 && value * seconds < 9e9) return static_cast<std::int64_t>(value * seconds * 1e9);
  }
  return fail(Code::kConfig, fmt::format("'{}' is no time: give a number with s, m, h, d or w, or 0", text));
}

}  // namespace cairn::cli
