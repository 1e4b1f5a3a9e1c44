// One disk of this server: its engine, the threads that may block on it, and its state.
//
// run() and run_durable() are the only way to the engine from coroutines. Reads and buffered writes have
// threads of their own, so that they never queue behind what waits for the disk to sync; a slow disk starves
// no other. A kIo from the engine takes the target out of service for good (failed() is true); the process
// stays. Thread-safe. Destroy after everything that uses it has ended: finishes queued work, then closes the
// engine.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "chunkserver/damage_log.h"
#include "store/base/result.h"
#include "store/disk/chunk_engine.h"
#include "store/rpc/task.h"

namespace cairn::chunkserver {

struct TargetThreads {
  unsigned quick = 4;
  unsigned durable = 16;
};

class Target {
 public:
  Target(std::unique_ptr<disk::ChunkEngine> engine, std::string path, const TargetThreads& threads);
  Target(const Target&) = delete;

  TargetId id() const { return id_; }
  const std::string& path() const { return path_; }
  const disk::Superblock& superblock() const { return superblock_; }

  template <class T>
  using Work = std::function<Result<T>(disk::ChunkEngine&)>;
  template <class T>
  rpc::Task<Result<T>> run(Work<T> work) {
    return quick_.run<T>([this, work = std::move(work)]() -> Result<T> { return watched<T>(work); });
  }
  template <class T>
  rpc::Task<Result<T>> run_durable(Work<T> work) {
    return durable_.run<T>([this, work = std::move(work)]() -> Result<T> { return watched<T>(work); });
  }
  enum class Wait { kNo, kForSync };
  // Without a coroutine: `work` runs on a pool thread. False: the queue is full, not called.
  bool post(Wait wait, std::function<void(disk::ChunkEngine&)> work);
  // All that returned before is on disk when this returns. Concurrent calls share one sync.
  rpc::Task<Result<>> sync();

  // Looks at an engine's error: kIo means that the disk is not to be trusted any more.
  void note(const Error& error);
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  void on_failure(std::function<void()> callback) { on_failure_ = std::move(callback); }  // set before use

  DamageLog& damage() { return damage_; }

  // Space left for chunk data: as of the last refresh, less what was written since. Never blocks.
  std::uint64_t available() const;
  void wrote(std::uint64_t bytes) { written_.fetch_add(bytes, std::memory_order_relaxed); }
  disk::Usage usage() const;  // as of the last refresh
  void refresh();             // blocks: pool threads, or before serving

 private:
  template <class T>
  Result<T> watched(const Work<T>& work) {
    auto result = work(*engine_);
    if (!result) note(result.error());
    return result;
  }

  const std::string path_;
  std::unique_ptr<disk::ChunkEngine> engine_;
  const disk::Superblock superblock_;
  const TargetId id_;
  std::function<void()> on_failure_;
  std::atomic<bool> failed_{false};
  std::atomic<std::uint64_t> written_{0};
  DamageLog damage_;
  mutable std::mutex mutex_;
  disk::Usage usage_;        // guarded by mutex_
  rpc::BlockingPool quick_;  // last members: they finish what is queued before the engine goes
  rpc::BlockingPool durable_;
};

}  // namespace cairn::chunkserver
