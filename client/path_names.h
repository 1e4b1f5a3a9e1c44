// Absolute paths in the Cairn file system, as text.
#pragma once

#include <string>
#include <string_view>

namespace cairn::client {

// "/a/b", without "." and doubled slashes; the root is "/".
inline std::string normalized(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const auto slash = path.find('/');
    const auto name = path.substr(0, slash);
    if (!name.empty() && name != ".") out.append("/").append(name);
    if (slash == path.npos) break;
    path.remove_prefix(slash + 1);
  }
  return out.empty() ? "/" : out;
}

inline bool at_or_below(std::string_view path, std::string_view above) {
  if (above == "/") return true;
  return path.starts_with(above) && (path.size() == above.size() || path[above.size()] == '/');
}

// "/a" of "/a/b"; "/" of the root.
inline std::string_view directory_of(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == path.npos ? std::string_view("/") : path.substr(0, slash);
}
inline std::string_view name_of_path(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}
inline std::string joined(std::string_view directory, std::string_view name) {
  std::string out(directory == "/" ? "" : directory);
  return out.append("/").append(name);
}

}  // namespace cairn::client
