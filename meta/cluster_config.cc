#include "meta/cluster_config.h"

#include <fmt/format.h>

#include <bit>

namespace cairn::meta {

using std::chrono::milliseconds;

void read_cluster_config(ConfigReader& reader, ClusterConfig& config) {
  constexpr milliseconds kDay{24 * 3600 * 1000};
  reader.number("cluster.replicas", config.replicas, 1, 8);
  reader.number("cluster.slots", config.slots, 1, 1u << 16);
  reader.number("cluster.chunk_bytes", config.chunk_bytes, kBlockSize, 64u << 20);
  reader.text("cluster.failure_domain", config.failure_domain);
  reader.number("cluster.expected_servers", config.expected_servers, 0, 10'000);
  reader.duration_ms("cluster.layout_settle_ms", config.layout_settle, milliseconds(0), kDay);
  reader.duration_ms("cluster.layout_wait_ms", config.layout_wait, milliseconds(0), kDay);
  reader.duration_ms("cluster.lease_ms", config.lease, milliseconds(500), milliseconds(600'000));
  reader.duration_ms("cluster.heartbeat_ms", config.heartbeat, milliseconds(50), milliseconds(60'000));
  reader.duration_ms("cluster.suspect_ms", config.suspect, milliseconds(100), milliseconds(600'000));
  reader.duration_ms("cluster.repair_grace_ms", config.repair_grace, milliseconds(0), kDay);
  reader.duration_ms("cluster.reconcile_grace_ms", config.reconcile_grace, milliseconds(0), kDay);
  reader.number("cluster.joiners_per_target", config.joiners_per_target, 1, 64);
  reader.flag("cluster.rebalance", config.rebalance);
  reader.number("cluster.near_full_percent", config.near_full_percent, 10, 100);
}

Result<> check_cluster_config(const ClusterConfig& config) {
  if (!std::has_single_bit(config.slots))
    return fail(Code::kConfig, fmt::format("'cluster.slots' is {}: it must be a power of two", config.slots));
  if (config.chunk_bytes % kBlockSize != 0)
    return fail(Code::kConfig, fmt::format("'cluster.chunk_bytes' is {}: it must be a multiple of {}",
                                           config.chunk_bytes, kBlockSize));
  if (config.failure_domain.empty())
    return fail(Code::kConfig,
                "'cluster.failure_domain' is empty: give \"server\", \"target\" or a label's name");
  if (config.heartbeat * 3 > config.lease)
    return fail(
        Code::kConfig,
        fmt::format(
            "'cluster.heartbeat_ms' is {}: it may be at most a third of 'cluster.lease_ms' ({}), or one "
            "lost heartbeat would end a lease",
            config.heartbeat.count(), config.lease.count()));
  return {};
}

void print_cluster_config(const ClusterConfig& config, ConfigPrinter& printer) {
  auto number = [&](std::string_view key, std::uint64_t value, std::string_view comment) {
    printer.number(fmt::format("cluster.{}", key), value, comment);
  };
  auto time = [&](std::string_view key, milliseconds value, std::string_view comment) {
    number(key, static_cast<std::uint64_t>(value.count()), comment);
  };
  number("replicas", config.replicas, "copies of each chunk, 1 to 8 (used when the pool is created)");
  number("slots", config.slots, "groups of the pool, a power of two (used when the pool is created)");
  number("chunk_bytes", config.chunk_bytes, "size of a chunk (used when the pool is created)");
  printer.text("cluster.failure_domain", config.failure_domain,
               "server, target, or the name of a label such as rack");
  number("expected_servers", config.expected_servers,
         "groups are laid out when so many registered; 0: unknown");
  time("layout_settle_ms", config.layout_settle, "wait for more servers before groups are laid out");
  time("layout_wait_ms", config.layout_wait, "after this, lay out with fewer servers than replicas");
  time("lease_ms", config.lease, "a server silent for so long is dead");
  time("heartbeat_ms", config.heartbeat, "how often servers report");
  time("suspect_ms", config.suspect, "silent for so long: shown as suspect");
  time("repair_grace_ms", config.repair_grace, "a member that may return is replaced after this");
  time("reconcile_grace_ms", config.reconcile_grace,
       "wait for the rest of an in-sync set of which all restarted");
  number("joiners_per_target", config.joiners_per_target, "copies at once to, and from, one target");
  printer.flag("cluster.rebalance", config.rebalance, "move groups to targets that have fewer");
  number("near_full_percent", config.near_full_percent, "a target fuller than this gets no new groups");
}

}  // namespace cairn::meta
