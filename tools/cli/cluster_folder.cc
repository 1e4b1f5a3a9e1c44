#include "tools/cli/cluster_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "store/base/config.h"
#include "tools/cli/process.h"

namespace cairn::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::uint16_t kDefaultMetaPort = 7070;
constexpr unsigned kChunkserversMax = 64;

Result<> write_file(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (!file) return fail(Code::kIo, fmt::format("'{}' cannot be written", path.string()));
  return {};
}

Result<> make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return fail(Code::kIo, fmt::format("'{}' cannot be made: {}", path.string(), error.message()));
  return {};
}

std::string meta_config(const fs::path& folder, const UpOptions& options, std::uint16_t port) {
  ConfigPrinter out;
  out.text("listen", fmt::format("127.0.0.1:{}", port), "address that clients and chunkservers connect to");
  out.text("data_dir", (folder / "data").string(), "where the metadata lies");
  out.flag("init", true, "format data_dir if it is empty");
  out.text("log_file", (folder / "log").string(), "'-' is standard error");
  out.number("cluster.replicas", options.replicas, "copies of every chunk");
  out.number("cluster.expected_servers", options.chunkservers, "lay the groups out when so many registered");
  // Everything runs on one machine here: a server that is gone for a second has crashed, it is not being
  // rebooted.
  out.number("cluster.repair_grace_ms", 1000,
             "wait so long for a lost server before its chunks are copied again");
  return out.take();
}

std::string chunkserver_config(const fs::path& folder, const UpOptions& options, std::uint16_t port,
                               std::uint16_t meta_port) {
  ConfigPrinter out;
  out.text("listen", fmt::format("127.0.0.1:{}", port),
           "address that clients and other chunkservers connect to");
  out.list("meta", {fmt::format("127.0.0.1:{}", meta_port)}, "metadata servers");
  out.list("data_dirs", {(folder / "data").string()}, "one folder a disk");
  out.text("log_file", (folder / "log").string(), "'-' is standard error");
  if (options.capacity_bytes > 0)
    out.number("capacity_bytes", options.capacity_bytes, "use at most so much of each disk");
  if (options.reserve_bytes > 0)
    out.number("reserve_bytes", options.reserve_bytes, "of it, keep so much free of chunks");
  return out.take();
}

}  // namespace

fs::path default_data_folder() {
  if (const char* data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data != '\0')
    return fs::path(data) / "cairn";
  const char* home = std::getenv("HOME");
  return fs::path(home != nullptr && *home != '\0' ? home : ".") / ".local/share/cairn";
}

bool ClusterFolder::exists() const {
  std::error_code ignored;  // unreadable counts as absent; create() then says why
  return fs::exists(path_ / "meta/config.toml", ignored);
}

Result<> ClusterFolder::create(const UpOptions& options) const {
  if (exists()) return fail(Code::kExists, fmt::format("there is a cluster in '{}'", path_.string()));
  if (options.chunkservers < 1 || options.chunkservers > kChunkserversMax)
    return fail(Code::kConfig, fmt::format("--chunkservers must be from 1 to {}", kChunkserversMax));
  if (options.replicas < 1 || options.replicas > options.chunkservers)
    return fail(Code::kConfig, fmt::format("--replicas {} needs as many chunkservers (there are {})",
                                           options.replicas, options.chunkservers));
  TRY(std::uint16_t meta_port, free_port(options.port != 0 ? options.port : kDefaultMetaPort));
  if (options.port != 0 && meta_port != options.port)
    return fail(Code::kConfig,
                fmt::format("port {} of 127.0.0.1 is in use; name another with --port", options.port));

  // meta/config.toml is written last: only with it does the folder hold a cluster.
  for (unsigned n = 1; n <= options.chunkservers; ++n) {
    fs::path folder = path_ / fmt::format("chunkserver-{}", n);
    TRYV(make_folder(folder / "data"));
    auto wanted = static_cast<std::uint16_t>(meta_port + n);
    TRY(std::uint16_t port, free_port(wanted));
    TRYV(write_file(folder / "config.toml", chunkserver_config(folder, options, port, meta_port)));
  }
  fs::path meta = path_ / "meta";
  TRYV(make_folder(meta / "data"));
  return write_file(meta / "config.toml", meta_config(meta, options, meta_port));
}

std::vector<Part> ClusterFolder::parts() const {
  std::vector<Part> parts = {{"meta", "cairn-meta", path_ / "meta"}};
  std::map<int, fs::path> chunkservers;
  constexpr std::string_view kPrefix = "chunkserver-";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && fs::exists(entry.path() / "config.toml", ignored))
      chunkservers[std::atoi(name.c_str() + kPrefix.size())] = entry.path();
  }
  for (const auto& [number, folder] : chunkservers)
    parts.push_back({fmt::format("chunkserver-{}", number), "cairn-chunkserver", folder});
  return parts;
}

Result<std::string> ClusterFolder::meta_address() const {
  std::ifstream file(path_ / "meta/config.toml");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("listen")) continue;
    std::size_t from = line.find('"');
    std::size_t to = from == std::string::npos ? from : line.find('"', from + 1);
    if (to != std::string::npos) return line.substr(from + 1, to - from - 1);
  }
  return fail(Code::kConfig,
              fmt::format("'{}' names no listen address", (path_ / "meta/config.toml").string()));
}

std::string ClusterFolder::mountpoint() const {
  std::ifstream file(path_ / "fuse/mountpoint");
  std::string mountpoint;
  std::getline(file, mountpoint);
  return mountpoint;
}

Result<> ClusterFolder::set_mountpoint(const std::string& mountpoint) const {
  TRYV(make_folder(path_ / "fuse"));
  return write_file(path_ / "fuse/mountpoint", mountpoint + "\n");
}

}  // namespace cairn::cli
