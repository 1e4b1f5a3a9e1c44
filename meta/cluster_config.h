// Settings of the cluster side of the metadata server: table [cluster] of its config file. Read at start (a
// change needs a restart). `replicas`, `slots`, `chunk_bytes` and `failure_domain` are used when the default
// pool is created; the pool's record rules afterwards.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "store/base/checksum.h"
#include "store/base/config.h"

namespace cairn::meta {

struct ClusterConfig {
  std::uint32_t replicas = 2;  // copies of each chunk, 1 to 8
  std::uint32_t slots = 128;   // groups of the pool, a power of two
  std::uint32_t chunk_bytes = kDefaultChunkSize;
  std::string failure_domain = "server";  // "server", "target" (a disk), or a label's name ("host", "rack")

  // Groups get members when `expected_servers` registered (0: unknown), or when enough failure domains did
  // and none came for layout_settle; with fewer domains than replicas after layout_wait.
  std::uint32_t expected_servers = 0;
  std::chrono::milliseconds layout_settle{1000};
  std::chrono::milliseconds layout_wait{30'000};

  std::chrono::milliseconds lease{10'000};  // a server silent for so long is dead
  std::chrono::milliseconds heartbeat{1000};
  std::chrono::milliseconds suspect{3000};  // silent for so long: shown as suspect

  std::chrono::milliseconds repair_grace{
      60'000};  // before a group with enough copies replaces a member that may return
  std::chrono::milliseconds reconcile_grace{
      30'000};                           // wait for the rest of an in-sync set of which all restarted
  std::uint32_t joiners_per_target = 4;  // copies going on at once to, and from, one target
  bool rebalance = true;                 // move groups to targets that have fewer
  std::uint32_t near_full_percent = 90;  // a target fuller than this gets no new groups
};

// Reads [cluster]; problems show in reader.finish().
void read_cluster_config(ConfigReader& reader, ClusterConfig& config);
// kConfig for values that do not fit together (slots no power of two, heartbeat not well below the lease).
Result<> check_cluster_config(const ClusterConfig& config);
// The effective values, as --print-config shows them.
void print_cluster_config(const ClusterConfig& config, ConfigPrinter& printer);

}  // namespace cairn::meta
