#include "meta/meta_config.h"

namespace cairn::meta {

using std::chrono::milliseconds;

Result<MetaConfig> read_meta_config(const std::string& path) {
  MetaConfig config;
  TRY(auto reader, ConfigReader::open(path));
  reader.text("listen", config.listen);
  reader.required("data_dir");
  reader.text("data_dir", config.data_dir);
  reader.flag("init", config.init);
  reader.text("cluster_id", config.cluster_id);
  reader.number("io_threads", config.io_threads, 1, 64);
  reader.duration_ms("lease_ms", config.lease, milliseconds(500), milliseconds(600'000));
  reader.duration_ms("recall_max_ms", config.recall_max, milliseconds(500), milliseconds(600'000));
  reader.number("leases_per_session", config.leases_per_session, 16, 10'000'000);
  reader.duration_ms("deleted_object_keep_ms", config.deleted_object_keep, milliseconds(0),
                     milliseconds(std::int64_t{30} * 24 * 3600 * 1000));
  reader.duration_ms("trash_retention_ms", config.trash_retention, milliseconds(0),
                     milliseconds(std::int64_t{3650} * 24 * 3600 * 1000));
  reader.number("block_cache_bytes", config.block_cache_bytes, std::uint64_t{1} << 20,
                std::uint64_t{1} << 40);
  reader.number("write_buffer_bytes", config.write_buffer_bytes, std::uint64_t{1} << 20,
                std::uint64_t{1} << 34);
  reader.number("ballast_bytes", config.ballast_bytes, std::uint64_t{1} << 20, std::uint64_t{1} << 40);
  reader.number("root_mode", config.root_mode, 0, 07777);
  reader.text("log_level", config.log_level);
  reader.text("log_file", config.log_file);
  read_cluster_config(reader, config.cluster);
  TRYV(reader.finish());
  TRYV(check_cluster_config(config.cluster));
  TRYV(parse_log_level(config.log_level));
  if (!config.cluster_id.empty()) TRYV(parse_hex64(config.cluster_id));
  if (config.data_dir.empty()) return fail(Code::kConfig, path + ": 'data_dir' is empty");
  return config;
}

std::string print_meta_config(const MetaConfig& config) {
  ConfigPrinter out;
  const auto ms = [](milliseconds d) { return static_cast<std::uint64_t>(d.count()); };
  out.text("listen", config.listen, "HOST:PORT for clients and chunkservers");
  out.text("data_dir", config.data_dir, "where the metadata lies (one server at a time)");
  out.flag("init", config.init, "format data_dir if it is empty");
  out.text("cluster_id", config.cluster_id, "16 hex digits; empty: whatever data_dir holds");
  out.number("io_threads", config.io_threads, "threads that serve connections, 1 to 64");
  out.number("lease_ms", ms(config.lease),
             "a client's session that is silent for so long ends, 500 to 600000");
  out.number("recall_max_ms", ms(config.recall_max),
             "a client that lives but does not give back a lease for so long is fenced");
  out.number("leases_per_session", config.leases_per_session, "more are answered, but may not be cached");
  out.number("deleted_object_keep_ms", ms(config.deleted_object_keep),
             "that an object was deleted is known for so long");
  out.number("trash_retention_ms", ms(config.trash_retention),
             "deleted files can be restored for so long, where no directory says otherwise; 0: not at all");
  out.number("block_cache_bytes", config.block_cache_bytes, "RocksDB's cache of what it reads");
  out.number("write_buffer_bytes", config.write_buffer_bytes, "RocksDB's buffer of new rows (there are two)");
  out.number("ballast_bytes", config.ballast_bytes,
             "set aside, so that removals still work when the file system is full");
  out.number("root_mode", config.root_mode,
             "permission bits of a new cluster's root directory (493 is 0755)");
  out.text("log_level", config.log_level, "debug, info, warn, error, off");
  out.text("log_file", config.log_file, "'-' is standard error; reopened on SIGHUP");
  print_cluster_config(config.cluster, out);
  return out.take();
}

}  // namespace cairn::meta
