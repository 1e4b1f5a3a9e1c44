// The folder that `cairn up` keeps a cluster of one machine in: one sub-folder a part (meta, chunkserver-N,
// fuse), each with config.toml, data/, log and pid, so that each part can be stopped, killed or wiped by
// itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace cairn::cli {

struct Part {
  std::string name;     // "meta", "chunkserver-2"
  std::string program;  // "cairn-meta"
  std::filesystem::path folder;
};

struct UpOptions {
  std::filesystem::path data;
  unsigned chunkservers = 3;
  unsigned replicas = 2;
  std::uint16_t port = 0;            // of the metadata server; 0: 7070, or any free one
  std::uint64_t capacity_bytes = 0;  // of each chunkserver; 0: what the disk has
  std::uint64_t reserve_bytes = 0;   // kept free on each; 0: the server's default
  std::string mount;
};

std::filesystem::path default_data_folder();  // $XDG_DATA_HOME/cairn, else ~/.local/share/cairn

class ClusterFolder {
 public:
  explicit ClusterFolder(std::filesystem::path path)
      : path_(std::filesystem::absolute(std::move(path)).lexically_normal()) {}
  const std::filesystem::path& path() const { return path_; }
  bool exists() const;
  // Writes the config files of a new cluster. kExists if there is one, kInvalidArgument for impossible
  // numbers.
  Result<> create(const UpOptions& options) const;
  // meta first, then the chunkservers in order.
  std::vector<Part> parts() const;
  // The metadata server's address, from meta/config.toml.
  Result<std::string> meta_address() const;
  // Where a mount started with this cluster is; empty if none was.
  std::string mountpoint() const;
  Result<> set_mountpoint(const std::string& mountpoint) const;

 private:
  std::filesystem::path path_;
};

}  // namespace cairn::cli
