#include "chunkserver/target.h"

#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {
constexpr std::size_t kQueueMax = 65536;  // requests are bounded before they get here
}

Target::Target(std::unique_ptr<disk::ChunkEngine> engine, std::string path, const TargetThreads& threads)
    : path_(std::move(path)),
      engine_(std::move(engine)),
      superblock_(engine_->superblock()),
      id_(superblock_.target),
      quick_(threads.quick, kQueueMax, "disk"),
      durable_(threads.durable, kQueueMax, "sync") {
  refresh();
}

bool Target::post(Wait wait, std::function<void(disk::ChunkEngine&)> work) {
  rpc::BlockingPool& pool = wait == Wait::kForSync ? durable_ : quick_;
  return pool.post([this, work = std::move(work)] { work(*engine_); });
}

rpc::Task<Result<>> Target::sync() {
  Work<void> work = [](disk::ChunkEngine& engine) { return engine.sync(); };
  return run_durable<void>(std::move(work));
}

void Target::note(const Error& error) {
  if (error.code() != Code::kIo || failed_.exchange(true, std::memory_order_acq_rel)) return;
  log_error("target_failed", "target={} path={} error={}", to_string(id_), path_, log_quote(error.message()));
  if (on_failure_) on_failure_();
}

std::uint64_t Target::available() const {
  const std::uint64_t written = written_.load(std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  return usage_.available_bytes > written ? usage_.available_bytes - written : 0;
}

disk::Usage Target::usage() const {
  std::lock_guard lock(mutex_);
  return usage_;
}

void Target::refresh() {
  const std::uint64_t written = written_.load(std::memory_order_relaxed);
  disk::Usage usage = engine_->usage();
  std::lock_guard lock(mutex_);
  usage_ = usage;
  written_.fetch_sub(written, std::memory_order_relaxed);
}

}  // namespace cairn::chunkserver
