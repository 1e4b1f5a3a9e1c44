// Which file systems are mounted where, from /proc/self/mountinfo. Touches no mounted file system, so it
// never hangs on a dead one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace cairn::fuse {

constexpr std::string_view kFsType = "fuse.cairn";

struct Mounted {
  std::string mountpoint;
  std::string type;    // "fuse.cairn"
  std::string source;  // the metadata server's address
  std::string device;  // "0:53", as under /sys/class/bdi
};

std::vector<Mounted> parse_mountinfo(std::string_view text);
// The topmost one at exactly this absolute path. kIo if /proc is not there.
Result<std::optional<Mounted>> find_mount(const std::string& path);

// Absolute, without "." and "..", no trailing slash; symbolic links on the way are followed, but the last
// component is not looked at (it may be a dead mount).
Result<std::string> absolute_mountpoint(const std::string& path);

}  // namespace cairn::fuse
