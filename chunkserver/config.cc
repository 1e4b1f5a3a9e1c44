#include "chunkserver/config.h"

#include <algorithm>

#include "store/base/config.h"

namespace cairn::chunkserver {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

Result<ChunkserverConfig> read(ConfigReader reader) {
  using std::chrono::milliseconds;
  ChunkserverConfig c;
  reader.required("data_dirs");
  reader.text("listen", c.listen);
  reader.text("advertise", c.advertise);
  reader.list("meta", c.meta);
  reader.list("data_dirs", c.data_dirs);
  reader.list("labels", c.labels);
  reader.number("capacity_bytes", c.capacity_bytes, 0, UINT64_MAX >> 1);
  reader.number("reserve_bytes", c.reserve_bytes, kMiB, UINT64_MAX >> 1);
  reader.number("cache_bytes", c.cache_bytes, kMiB, 1ULL << 40);
  reader.number("near_full_percent", c.near_full_percent, 1, 100);
  reader.number("io_threads", c.io_threads, 1, 64);
  reader.number("disk_threads", c.disk_threads, 1, 64);
  reader.number("sync_threads", c.sync_threads, 1, 256);
  reader.number("limits.write_bytes_in_flight", c.write_bytes_in_flight, 16 * kMiB, 1ULL << 40);
  reader.number("limits.copy_bytes_in_flight", c.copy_bytes_in_flight, 16 * kMiB, 1ULL << 40);
  reader.number("limits.copies_in_flight", c.copies_in_flight, 1, 1024);
  reader.number("limits.groups_compared_at_once", c.groups_compared_at_once, 1, 1024);
  reader.duration_ms("drain_ms", c.drain, milliseconds(0), milliseconds(60'000));
  reader.text("log_file", c.log_file);
  reader.text("log_level", c.log_level);
  TRYV(reader.finish());
  if (c.data_dirs.empty()) return fail(Code::kConfig, "data_dirs is empty: name at least one directory");
  std::vector<std::string> sorted = c.data_dirs;
  std::ranges::sort(sorted);
  if (std::ranges::adjacent_find(sorted) != sorted.end())
    return fail(Code::kConfig, "data_dirs names '" + *std::ranges::adjacent_find(sorted) + "' twice");
  if (c.meta.empty()) return fail(Code::kConfig, "meta is empty: name the metadata server, HOST:PORT");
  const bool wildcard = c.listen.starts_with("0.0.0.0:") || c.listen.starts_with("[::]:");
  if (wildcard && c.advertise.empty())
    return fail(Code::kConfig,
                "listen is '" + c.listen + "': set advertise to the HOST:PORT that others shall use");
  return c;
}

}  // namespace

Result<ChunkserverConfig> ChunkserverConfig::load(const std::string& path) {
  TRY(auto reader, ConfigReader::open(path));
  auto config = read(std::move(reader));
  // The reader's own messages name the file already.
  if (!config && !config.error().message().starts_with(path)) return fail(config.error().with(path));
  return config;
}

Result<ChunkserverConfig> ChunkserverConfig::parse(std::string_view text, std::string name) {
  TRY(auto reader, ConfigReader::parse(text, std::move(name)));
  return read(std::move(reader));
}

std::string ChunkserverConfig::print() const {
  ConfigPrinter p;
  p.text("listen", listen, "HOST:PORT to serve on (restart)");
  p.text("advertise", advertise, "HOST:PORT that clients and other servers use; empty: as listen");
  p.list("meta", meta, "metadata servers, tried in order");
  p.list("data_dirs", data_dirs, "one directory a disk; an empty one is formatted when the server joins");
  p.list("labels", labels, "failure domains, such as \"rack=a\"");
  p.number("capacity_bytes", capacity_bytes, "what each directory may use in all; 0: the whole file system");
  p.number("reserve_bytes", reserve_bytes, "kept free on each, so that deletes and repair always work");
  p.number("cache_bytes", cache_bytes, "index cache of each");
  p.number("near_full_percent", near_full_percent, "reported as near full from here on");
  p.number("io_threads", io_threads, "network threads");
  p.number("disk_threads", disk_threads, "threads a directory for reads and buffered writes");
  p.number("sync_threads", sync_threads, "threads a directory that wait for durable writes");
  p.number("drain_ms", static_cast<std::uint64_t>(drain.count()),
           "SIGTERM: time for running requests to end");
  p.number("limits.write_bytes_in_flight", write_bytes_in_flight,
           "memory for writes on their way down the chain");
  p.number("limits.copy_bytes_in_flight", copy_bytes_in_flight, "memory for chunks being copied in");
  p.number("limits.copies_in_flight", copies_in_flight, "chunks copied at once");
  p.number("limits.groups_compared_at_once", groups_compared_at_once,
           "groups compared with another member at once");
  p.text("log_file", log_file, "\"-\": stderr");
  p.text("log_level", log_level, "debug, info, warn, error, off");
  return p.take();
}

}  // namespace cairn::chunkserver
