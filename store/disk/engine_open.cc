// Formatting, opening and closing a target. Recovery is in engine_recover.cc.
#include <fmt/format.h>

#include <algorithm>

#include "store/base/checksum.h"
#include "store/base/log.h"
#include "store/base/rng.h"
#include "store/disk/engine.h"
#include "store/disk/superblock.h"

namespace cairn::disk {
namespace {

constexpr std::uint64_t kExtentFileBytes = 1 << 30;
constexpr std::uint64_t kExtentFilesMax = 256;  // open files; beyond, the files grow instead
constexpr std::uint64_t kBallastBytes = 32 << 20;
constexpr std::uint32_t kInlineMax =
    kSumsInRecord * kBlockSize;  // an inline chunk's checksums are in its record

std::uint64_t extent_file_bytes_for(std::uint64_t disk_bytes) {
  std::uint64_t bytes = kExtentFileBytes;
  while (bytes * kExtentFilesMax < disk_bytes) bytes *= 2;
  return bytes;
}

std::string parent_of(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return path.substr(0, std::max<std::size_t>(1, slash));
}

}  // namespace

Result<Superblock> ChunkEngine::format(Disk& disk, const std::string& dir, ClusterId cluster, ServerId server,
                                       Era era, std::uint64_t extent_file_bytes) {
  TRYV(disk.make_dir(dir));
  TRYV(disk.sync_dir(parent_of(dir)));  // the directory itself must survive a power cut too
  TRY(auto names, foreign_names(disk, dir));
  if (!names.empty())
    return fail(Code::kExists, fmt::format("{} is not empty (it holds '{}'): choose an empty directory", dir,
                                           names.front()));
  Superblock superblock;
  superblock.cluster = cluster;
  superblock.server = server;
  do superblock.target = TargetId(SystemRng().next());
  while (!superblock.target.valid());
  superblock.era = era;
  superblock.clean = true;
  superblock.extent_file_bytes = extent_file_bytes;
  if (extent_file_bytes == 0) {
    TRY(Space space, disk.space(dir));
    superblock.extent_file_bytes = extent_file_bytes_for(space.total_bytes);
  }
  if (superblock.extent_file_bytes % kUnitBytes != 0)
    return fail(Code::kInvalidArgument, fmt::format("extent files of {} bytes", extent_file_bytes));
  TRY(superblock.machine_boot_id, disk.machine_boot_id());
  TRYV(write_superblock(disk, dir, superblock));
  return superblock;
}

Result<Superblock> ChunkEngine::identify(Disk& disk, const std::string& dir) {
  return read_superblock(disk, dir);
}

Result<std::unique_ptr<ChunkEngine>> ChunkEngine::open(Disk& disk, const std::string& dir, ClusterId cluster,
                                                       const EngineOptions& options) {
  return Engine::open_target(disk, dir, cluster, options);
}

Engine::Engine(Disk& disk, std::string dir, const EngineOptions& options)
    : disk_(disk), dir_(std::move(dir)), options_([&] {
        EngineOptions limited = options;
        limited.inline_bytes_max = std::min(limited.inline_bytes_max, kInlineMax);
        return limited;
      }()) {}

Result<std::unique_ptr<ChunkEngine>> Engine::open_target(Disk& disk, const std::string& dir,
                                                         ClusterId cluster, const EngineOptions& options) {
  std::unique_ptr<Engine> engine(new Engine(disk, dir, options));
  auto started = engine->start(cluster);
  if (!started) return fail(started.error());
  return std::unique_ptr<ChunkEngine>(std::move(engine));
}

Result<> Engine::start(ClusterId cluster) {
  TRY(superblock_, read_superblock(disk_, dir_));
  if (superblock_.cluster != cluster)
    return fail(Code::kWrongCluster, fmt::format("{} belongs to cluster {}, not {}: it is not touched", dir_,
                                                 to_string(superblock_.cluster), to_string(cluster)));
  TRY(lock_, disk_.lock(dir_ + "/lock"));
  TRY(superblock_, read_superblock(disk_, dir_));  // again, now that nobody else changes it
  TRY(std::string boot_id, disk_.machine_boot_id());
  bool clean = superblock_.clean;
  bool same_boot = superblock_.machine_boot_id == boot_id;
  TRY(extents_, ExtentStore::open(disk_, dir_ + "/extents", superblock_.extent_file_bytes));
  TRY(ballast_, Ballast::open(disk_, dir_ + "/ballast", std::min(kBallastBytes, options_.reserve_bytes / 4)));
  TRYV(open_index(clean, same_boot));
  TRYV(open_note());
  TRYV(disk_.sync_dir(dir_));
  // Only now: until the index was there once it is made at each attempt, and an attempt that failed does not
  // make the next one forget how the log may end.
  Superblock opened = superblock_;
  ++opened.boot_count;
  opened.clean = false;
  opened.machine_boot_id = boot_id;
  TRYV(write_superblock(disk_, dir_, opened));
  superblock_ = opened;
  TRYV(recover());
  if (!clean) extents_->punch_free_space();
  TRY(space_,
      SpaceGauge::open(disk_, dir_, options_.capacity_bytes, options_.reserve_bytes, *extents_, *index_));
  log_info("target_open", "target={} dir={} boot_count={} last_close={} chunks={} used_bytes={}",
           to_string(superblock_.target), log_quote(dir_), superblock_.boot_count,
           clean       ? "clean"
           : same_boot ? "killed"
                       : "machine_stopped",
           chunks_.load(), extents_->used_bytes());
  if (options_.background_interval.count() > 0) background_thread_ = std::thread([this] { background(); });
  return {};
}

std::unexpected<Error> Engine::damaged(std::string_view what) const {
  return fail(
      Code::kCorrupt,
      fmt::format("target {} in {} is damaged and was not opened: {}. Keep {} aside and give the server "
                  "an empty directory in its place: it becomes a new target, and gets its chunks from "
                  "their other copies",
                  to_string(superblock_.target), dir_, what, dir_));
}

Result<> Engine::open_note() {
  TRY(note_, disk_.open(dir_ + "/synced", Disk::Open::kUpdate));
  for (std::uint64_t slot = 0; slot < 2; ++slot) {
    std::string text(kNoteBytes, '\0');
    TRY(std::size_t size, note_->pread(slot * kNoteSlotBytes, writable(text)));
    ByteReader in(std::string_view(text).substr(0, size));
    const std::uint64_t generation = in.u64();
    // A torn slot: the other one holds what was noted before.
    if (in.u64() != checksum64(as_bytes(text).first(8)) || !in.ok() || generation <= noted_generation_)
      continue;
    noted_generation_ = generation;
    note_slot_ = 1 - slot;
  }
  return {};
}

// A target that lost its index, or synced entries of it, must not serve under its old identity: it would tell
// others that what it lost was never there, and would give the space of what it lost to new chunks.
Result<> Engine::open_index(bool clean, bool same_boot) {
  Index::Before before = Index::Before::kUnsyncedIsLost;
  if (superblock_.boot_count == 0)
    before = Index::Before::kNothing;
  else if (clean || same_boot)
    before = Index::Before::kWholeLog;
  auto opened = Index::open(disk_, *ballast_, dir_ + "/index", options_.cache_bytes, before);
  if (!opened && opened.error().code() == Code::kCorrupt) return damaged(opened.error().message());
  if (!opened) return fail(opened.error());
  index_ = std::move(*opened);
  return {};
}

Engine::~Engine() {
  if (background_thread_.joinable()) {
    {
      std::lock_guard lock(background_mutex_);
      stopping_ = true;
    }
    background_wake_.notify_one();
    background_thread_.join();
  }
  if (gate_ == nullptr || failed_) return;  // never opened, or beyond trust: the next open checks everything
  auto closed = [&]() -> Result<> {
    TRYV(maintain());
    TRYV(sync());
    index_.reset();
    superblock_.clean = true;
    return write_superblock(disk_, dir_, superblock_);
  }();
  if (!closed)
    log_warn("target_close_failed", "target={} error={}", to_string(superblock_.target),
             log_quote(closed.error().to_string()));
}

}  // namespace cairn::disk
