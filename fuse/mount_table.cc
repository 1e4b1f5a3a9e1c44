#include "fuse/mount_table.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace cairn::fuse {
namespace {

// Blanks, tabs, newlines and backslashes stand as three octal digits.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out.push_back(
          static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

}  // namespace

std::vector<Mounted> parse_mountinfo(std::string_view text) {
  // 36 35 98:0 /root /mnt rw,noatime master:1 - type source superoptions
  std::vector<Mounted> all;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const auto separator = line.find(" - ");
    if (separator == std::string::npos) continue;
    std::istringstream head(line.substr(0, separator)), tail(line.substr(separator + 3));
    std::string id, parent, device, root, mountpoint, type, source;
    if (!(head >> id >> parent >> device >> root >> mountpoint) || !(tail >> type)) continue;
    tail >> source;
    all.push_back({unescape(mountpoint), unescape(type), unescape(source), device});
  }
  return all;
}

Result<std::optional<Mounted>> find_mount(const std::string& path) {
  std::ifstream file("/proc/self/mountinfo");
  if (!file) return fail(Code::kIo, "cannot read /proc/self/mountinfo: is /proc mounted?");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::optional<Mounted> found;
  for (auto& mounted : parse_mountinfo(text)) {
    if (mounted.mountpoint == path) found = std::move(mounted);
  }
  return found;
}

Result<std::string> absolute_mountpoint(const std::string& path) {
  namespace fs = std::filesystem;
  if (path.empty()) return fail(Code::kInvalidArgument, "no mount point given");
  std::error_code error;
  fs::path lexical = fs::absolute(path, error).lexically_normal();
  if (error) return fail(Code::kIo, "cannot make '" + path + "' absolute: " + error.message());
  if (!lexical.has_filename()) lexical = lexical.parent_path();  // "/mnt/x/"
  if (lexical.empty() || lexical == "/") return std::string("/");
  const fs::path parent = fs::canonical(lexical.parent_path(), error);
  if (error) {
    return fail(error == std::errc::no_such_file_or_directory ? Code::kNotFound : Code::kIo,
                "cannot reach '" + lexical.parent_path().string() + "': " + error.message());
  }
  return (parent / lexical.filename()).string();
}

}  // namespace cairn::fuse
