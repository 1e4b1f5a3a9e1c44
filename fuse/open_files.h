// The files that the kernel holds open, so that the end of the mount can close what it never released: when a
// mount is detached, the kernel drops RELEASE requests that nobody has read yet.
#pragma once

#include <fcntl.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "client/file_system.h"

namespace cairn::fuse {

// One open of a file by the kernel.
//
// O_APPEND belongs to the client's handle (it picks the offset), but to the kernel it is a flag that
// fcntl(F_SETFL) changes at any time, and pages written back from a mapping always have a place of their own.
// So a file may need a second handle, of the other kind; it is opened when first needed. Thread-safe.
class OpenFile {
 public:
  OpenFile(InodeId inode, int flags, Handle handle) : inode(inode), flags(flags), handle(std::move(handle)) {}

  // Null: not opened yet.
  Handle of_kind(bool append) const {
    if (append == ((flags & O_APPEND) != 0)) return handle;
    std::lock_guard lock(mutex_);
    return other_;
  }
  // Keeps the first handle of the other kind; returns the one to give back: another thread was faster, or the
  // file was closed meanwhile.
  Handle keep_other(Handle opened) {
    std::lock_guard lock(mutex_);
    if (other_ || released_) return opened;
    other_ = std::move(opened);
    return nullptr;
  }
  void release(FileSystem& files) {
    files.release_now(handle);
    std::lock_guard lock(mutex_);
    released_ = true;
    if (other_) files.release_now(std::exchange(other_, nullptr));
  }

  const InodeId inode;
  const int flags;
  const Handle handle;

 private:
  mutable std::mutex mutex_;
  Handle other_;
  bool released_ = false;
};
using OpenFileRef = std::shared_ptr<OpenFile>;

// Numbers for fuse_file_info::fh, stable addresses behind them. Thread-safe.
class OpenFiles {
 public:
  std::uint64_t add(OpenFileRef file) {
    auto* place = new OpenFileRef(std::move(file));
    std::lock_guard lock(mutex_);
    files_.emplace(place, std::unique_ptr<OpenFileRef>(place));
    return reinterpret_cast<std::uint64_t>(place);
  }
  // Until remove(). The reference may be copied to outlive it (requests that were abandoned).
  static OpenFileRef& get(std::uint64_t fh) { return *reinterpret_cast<OpenFileRef*>(fh); }
  OpenFileRef remove(std::uint64_t fh) {
    std::lock_guard lock(mutex_);
    auto node = files_.extract(reinterpret_cast<OpenFileRef*>(fh));
    return node ? std::move(*node.mapped()) : nullptr;
  }
  // Whether closes of descriptors that only read must be heard: they give back record locks. From the first
  // one on that is taken on this mount; until then each such close saves a round trip (docs/locks.md).
  bool record_locks_seen() const { return record_locks_seen_.load(std::memory_order_relaxed); }
  void record_lock_seen() { record_locks_seen_.store(true, std::memory_order_relaxed); }
  // After the last request: what the kernel never closed.
  void release_all(FileSystem& files) {
    std::lock_guard lock(mutex_);
    for (auto& [place, file] : files_) (*file)->release(files);
    files_.clear();
  }

 private:
  std::atomic<bool> record_locks_seen_{false};
  std::mutex mutex_;
  std::unordered_map<OpenFileRef*, std::unique_ptr<OpenFileRef>> files_;
};

}  // namespace cairn::fuse
