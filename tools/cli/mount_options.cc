#include "tools/cli/mount_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>

namespace cairn::cli {
namespace {

// Of the kernel, for any file system.
constexpr std::array<std::string_view, 16> kKernel = {
    "suid",  "nosuid",  "dev",      "nodev",      "exec",        "noexec",   "sync",       "async",
    "atime", "noatime", "relatime", "norelatime", "strictatime", "diratime", "nodiratime", "dirsync"};
// Of mount(8) and of fstab(5).
constexpr std::array<std::string_view, 13> kOthers = {"defaults", "rw",      "auto",  "noauto", "user",
                                                      "nouser",   "users",   "group", "owner",  "_netdev",
                                                      "nofail",   "remount", "loud"};

template <class List>
bool is_in(const List& list, std::string_view what) {
  return std::find(list.begin(), list.end(), what) != list.end();
}

Result<> apply_one(std::string_view option, fuse::MountOptions& options) {
  const std::size_t equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  const std::string_view value = equals == option.npos ? std::string_view() : option.substr(equals + 1);
  if (name == "memory") {
    TRY(options.client.memory_bytes, parse_memory(value));
    return {};
  }
  if (name == "log") {
    options.log_path = value;
    return {};
  }
  if (name == "timeout") {
    std::uint32_t seconds = 0;
    const auto [end, error] = std::from_chars(value.begin(), value.end(), seconds);
    if (error != std::errc() || end != value.end() || seconds == 0 || seconds > 86400)
      return fail(Code::kConfig, fmt::format("mount option '{}': seconds from 1 to 86400", option));
    options.client.timeout = std::chrono::seconds(seconds);
    return {};
  }
  if (name.starts_with("x-") || name.starts_with("X-") || name == "comment") return {};
  if (option == "ro") {
    options.read_only = true;
  } else if (option == "allow_other") {
    options.allow_other = true;
  } else if (option == "noallow_other") {
    options.allow_other = false;
  } else if (is_in(kKernel, option)) {
    options.kernel.emplace_back(option);
  } else if (option == "remount") {
    return fail(Code::kConfig,
                "a mount cannot be changed while it is there: unmount it, then mount it again");
  } else if (!is_in(kOthers, option)) {
    return fail(Code::kConfig,
                fmt::format("unknown mount option '{}': known are ro, allow_other, noallow_other, "
                            "memory=SIZE, timeout=SECONDS, log=FILE, and what the kernel knows "
                            "(noatime, nodev, nosuid, noexec, ...)",
                            option));
  }
  return {};
}

}  // namespace

Result<> apply_mount_options(std::string_view text, fuse::MountOptions& options) {
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view option = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (!option.empty()) TRYV(apply_one(option, options));
  }
  return {};
}

Result<std::uint64_t> parse_memory(std::string_view text) {
  constexpr std::uint64_t kMin = 16 << 20, kMax = std::uint64_t{1} << 40;
  std::string bytes(text), wrong;
  try {
    wrong = CLI::AsSizeValue(false)(bytes);  // as --capacity; leaves the number of bytes
  } catch (const CLI::Error& error) {        // some of what it does not like it returns, the rest it throws
    wrong = error.what();
  }
  std::uint64_t number = 0;
  const bool is_number = std::from_chars(bytes.data(), bytes.data() + bytes.size(), number).ec == std::errc();
  if (!wrong.empty() || !is_number || number < kMin || number > kMax)
    return fail(Code::kConfig,
                fmt::format("'{}' is no amount of memory: from 16M to 1024G, as in 256M", text));
  return number;
}

Result<std::vector<std::string>> arguments_of_helper(const std::vector<std::string>& arguments) {
  std::vector<std::string> places, out = {"mount"};
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const bool takes_value = argument == "-o" || argument == "-t" || argument == "-N";
    if (takes_value && i + 1 == arguments.size())
      return fail(Code::kConfig, fmt::format("mount.cairn: '{}' needs a value", argument));
    if (takes_value) {
      const std::string& value = arguments[++i];
      if (argument == "-o") out.insert(out.end(), {"-o", value});
      continue;
    }
    if (argument == "-f") return std::vector<std::string>();  // a dry run of mount(8)
    if (argument.starts_with("-")) continue;                  // -s, -n, -v change nothing here
    places.push_back(argument);
  }
  if (places.size() != 2)
    return fail(Code::kConfig,
                "usage: mount.cairn HOST:PORT[,HOST:PORT] DIR [-o options]; called by mount -t cairn");
  out.insert(out.end(), {"--meta", places[0], places[1]});
  return out;
}

}  // namespace cairn::cli
