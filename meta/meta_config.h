// Settings of the metadata server. All need a restart, except that SIGHUP reopens the log file.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "meta/cluster_config.h"
#include "store/base/ids.h"
#include "store/base/log.h"

namespace cairn::meta {

struct MetaConfig {
  std::string listen = "127.0.0.1:7070";  // HOST:PORT for clients and chunkservers
  std::string data_dir;                   // where the metadata lies; required
  bool init = false;                      // format data_dir if it is empty
  bool salvage = false;                   // command line only: see StoreOptions
  std::string cluster_id;                 // 16 hex digits; empty: whatever data_dir holds
  std::uint32_t io_threads = 2;
  std::chrono::milliseconds lease{10'000};  // a session silent for so long ends
  std::chrono::milliseconds recall_max{
      60'000};  // a client that lives but does not give back a lease is fenced
  std::uint32_t leases_per_session = 200'000;
  std::chrono::milliseconds deleted_object_keep{
      3'600'000};  // that an object was deleted is known for so long
  std::chrono::milliseconds trash_retention{24 * 3'600'000};  // 0: deleted files are not kept
  std::uint64_t block_cache_bytes = 64 << 20;
  std::uint64_t write_buffer_bytes = 16 << 20;
  std::uint64_t ballast_bytes = 64 << 20;  // set aside for the case that the file system fills
  std::uint32_t root_mode = 0755;  // of a new cluster's root directory, which belongs to who formats it
  std::string log_level = "info";
  std::string log_file = "-";
  ClusterConfig cluster;
};

Result<MetaConfig> read_meta_config(const std::string& path);  // kConfig
std::string print_meta_config(const MetaConfig& config);

}  // namespace cairn::meta
