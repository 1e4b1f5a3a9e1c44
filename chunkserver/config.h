// The configuration of cairn-chunkserver: a TOML file, read once at start. Unknown keys are errors.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace cairn::chunkserver {

struct ChunkserverConfig {
  std::string listen = "0.0.0.0:7081";
  std::string advertise;  // empty: `listen` with the port really bound
  std::vector<std::string> meta = {"127.0.0.1:7070"};
  std::vector<std::string> data_dirs;  // one target (disk) each
  std::vector<std::string> labels;     // "rack=a": failure domains

  std::uint64_t capacity_bytes = 0;            // of each target; 0: its file system
  std::uint64_t reserve_bytes = 256ULL << 20;  // of each target
  std::uint64_t cache_bytes = 32ULL << 20;     // of each target
  std::uint32_t near_full_percent = 90;

  std::uint32_t io_threads = 2;
  std::uint32_t disk_threads = 4;   // of each target: reads and buffered writes
  std::uint32_t sync_threads = 16;  // of each target: durable writes and syncs, which wait for the disk

  std::uint64_t write_bytes_in_flight = 48ULL << 20;  // payload of client writes that this server orders
  std::uint64_t copy_bytes_in_flight = 48ULL << 20;   // of chunks being copied in
  std::uint32_t copies_in_flight = 16;
  std::uint32_t groups_compared_at_once = 8;
  std::chrono::milliseconds drain{2000};  // SIGTERM: how long running requests may take to end

  std::string log_file = "-";
  std::string log_level = "info";

  static Result<ChunkserverConfig> load(const std::string& path);
  static Result<ChunkserverConfig> parse(std::string_view text, std::string name);
  std::string print() const;  // itself a valid config file
};

}  // namespace cairn::chunkserver
