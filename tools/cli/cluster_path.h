// Paths that people give: in the Cairn file system ("/projects/a"), or of this machine and below a mount
// ("/mnt/cairn/projects/a", or relative to a working directory there).
#pragma once

#include <string>

#include "store/base/result.h"

namespace cairn::cli {

struct ClusterPath {
  std::string path;  // absolute, in the Cairn file system
  std::string meta;  // the mount's metadata server; empty: not below a mount
};
// Looks the mounts up, and touches no file of theirs unless a symbolic link has to be followed. The last name
// need not exist. kConfig: a relative path that is below no mount.
Result<ClusterPath> cluster_path(const std::string& given);

// "4096", "512K", "1.5G", "2T": bytes, by powers of 1,024. kConfig.
Result<std::uint64_t> parse_bytes(const std::string& text);
// "90s", "15m", "12h", "7d", "2w"; "0". In nanoseconds. kConfig.
Result<std::int64_t> parse_duration(const std::string& text);

}  // namespace cairn::cli
