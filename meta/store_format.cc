#include "meta/store_format.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "meta/inode_store.h"
#include "meta/journal_guard.h"
#include "meta/keys.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kLockName = "lock";
constexpr std::string_view kStoreName = "store";

// system rows: version u8, then a number (u64) or text.
std::string number_row(std::uint64_t value) {
  return CountRecord{value}.encode();
}
Result<std::optional<std::uint64_t>> read_number(const KvStore& kv, std::string_view name) {
  TRY(auto bytes, kv.get(keys::system(name)));
  if (!bytes) return std::nullopt;
  TRY(auto record, CountRecord::decode(*bytes));
  return record.count;
}
Result<std::uint64_t> need_number(const KvStore& kv, std::string_view name) {
  TRY(auto value, read_number(kv, name));
  if (!value) return fail(Code::kCorrupt, "the metadata store has no '" + std::string(name) + "' record");
  return *value;
}

Result<bool> is_empty(const KvStore& kv) {
  bool empty = true;
  TRYV(kv.scan({}, {}, [&](std::string_view, std::string_view) {
    empty = false;
    return false;
  }));
  return empty;
}

Result<> format(KvStore& kv, const StoreOptions& options, ClusterId cluster) {
  InodeRecord root;
  root.mode = S_IFDIR | (options.root_mode & 07777);
  root.nlink = 2;
  root.uid = options.root_uid;
  root.gid = options.root_gid;
  root.atime = root.mtime = root.ctime = root.btime = options.wall_ns;
  root.change = 1;
  KvBatch batch{{keys::system("format"), number_row(kStoreFormat)},
                {keys::system("cluster"), number_row(cluster.value())},
                {keys::system("era"), number_row(1)},
                {keys::system("feature_level"), number_row(kFeatureLevel)},
                {keys::system("counters"), Counters{1, 1, 0}.encode()},
                {keys::inode(kRootInode), root.encode()},
                {keys::directory(kRootInode), DirectoryRecord{}.encode()},
                {keys::system("boot"), options.boot_id}};
  TRYV(kv.write(batch));
  return kv.sync();
}

}  // namespace

Result<StoreIdentity> open_store(KvStore& kv, const StoreOptions& options, Rng& rng) {
  StoreIdentity identity;
  TRY(auto version, read_number(kv, "format"));
  if (!version) {
    TRY(const bool empty, is_empty(kv));
    if (!empty)
      return fail(Code::kNeedsOperator,
                  "the store holds data, but not Cairn's metadata: give another data_dir");
    if (!options.init) {
      return fail(Code::kNeedsOperator,
                  "the store holds no metadata. If this is a new cluster set init = true (or run with "
                  "--init); if it is "
                  "not, its metadata is lost here: restore it, do not format");
    }
    const ClusterId cluster = options.expected.valid() ? options.expected : ClusterId(rng.next() | 1);
    TRYV(format(kv, options, cluster));
    identity.formatted = true;
  } else if (*version > kStoreFormat) {
    return fail(Code::kVersionMismatch, "the metadata has format " + std::to_string(*version) +
                                            ", this program knows up to " + std::to_string(kStoreFormat) +
                                            ": run the newer program that wrote it");
  }
  TRY(const std::uint64_t cluster, need_number(kv, "cluster"));
  TRY(std::uint64_t era, need_number(kv, "era"));
  TRY(const std::uint64_t feature_level, need_number(kv, "feature_level"));
  identity.cluster = ClusterId(cluster);
  if (options.expected.valid() && options.expected != identity.cluster) {
    return fail(Code::kWrongCluster, "the metadata belongs to cluster " + to_string(identity.cluster) +
                                         ", the configuration says " + to_string(options.expected));
  }
  if (feature_level > kFeatureLevel) {
    return fail(Code::kVersionMismatch, "the cluster was raised to feature level " +
                                            std::to_string(feature_level) + ", this program knows up to " +
                                            std::to_string(kFeatureLevel));
  }
  TRY(auto clean, read_number(kv, "clean"));
  TRY(auto boot, kv.get(keys::system("boot")));
  if (!identity.formatted && !clean && boot != options.boot_id) {
    if (++era > UINT16_MAX) return fail(Code::kNeedsOperator, "no era is left: please report this");
    identity.end_sessions = true;
  }
  TRY(const auto went_back, kv.get(went_back_key()));
  if (went_back && !options.salvage) return fail(Code::kNeedsOperator, *went_back);
  TRYV(kv.write({{went_back_key(), std::nullopt},
                 {keys::system("era"), number_row(era)},
                 {keys::system("boot"), options.boot_id},
                 {keys::system("clean"), std::nullopt}}));
  TRYV(kv.sync());
  identity.era = Era(static_cast<std::uint16_t>(era));
  identity.feature_level = static_cast<std::uint32_t>(feature_level);
  return identity;
}

Result<> mark_clean(KvStore& kv) {
  TRYV(kv.write({{keys::system("clean"), number_row(1)}}));
  return kv.sync();
}

Result<DirectoryLock> DirectoryLock::take(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return fail(Code::kIo, "can't make data_dir " + log_quote(directory) + ": " + error.message());
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    if (name != kLockName && name != kStoreName && name != "lost+found") {
      return fail(Code::kNeedsOperator,
                  "data_dir " + log_quote(directory) + " holds " + log_quote(name) +
                      ", which is not Cairn's: give an empty directory or the right one");
    }
  }
  if (error) return fail(Code::kIo, "can't list data_dir " + log_quote(directory) + ": " + error.message());
  const std::string path = fs::path(directory) / kLockName;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return fail(Code::kIo, "can't open " + log_quote(path) + ": " + std::strerror(errno));
  DirectoryLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    char pid[32] = {};
    const ssize_t n = ::pread(fd, pid, sizeof pid - 1, 0);
    const std::string owner =
        n > 0 ? "process " + std::string(pid, static_cast<std::size_t>(n)) : "another process";
    return fail(Code::kLocked, "data_dir " + log_quote(directory) + " is in use by " + owner);
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return fail(Code::kIo, "can't write " + log_quote(path) + ": " + std::strerror(errno));
  }
  return lock;
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::string> machine_boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  if (!std::getline(file, id) || id.empty())
    return fail(Code::kIo, "can't read /proc/sys/kernel/random/boot_id");
  return id;
}

}  // namespace cairn::meta
