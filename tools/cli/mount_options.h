// The options of mount(8) and fstab(5), and the command line that mount(8) gives its helper:
//   mount.cairn SPEC DIR [-sfnv] [-N namespace] [-t type] [-o options]      (mount(8), "external helpers")
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fuse/mount.h"

namespace cairn::cli {

// "ro,noatime,memory=512M,...": what Cairn knows is set, what the kernel knows is handed on, what is meant
// for mount(8) and systemd is left alone. kConfig names an option that nobody knows.
Result<> apply_mount_options(std::string_view text, fuse::MountOptions& options);

// Bytes: "4096", "512K", "256M", "2G". kConfig.
Result<std::uint64_t> parse_memory(std::string_view text);

// The arguments of `cairn mount` for those of mount.cairn. kConfig.
Result<std::vector<std::string>> arguments_of_helper(const std::vector<std::string>& arguments);

}  // namespace cairn::cli
