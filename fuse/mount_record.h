// How `cairn umount` knows that a mount process has written back everything: each holds a lock on a small
// file while it lives (umount(2) itself returns as soon as the kernel let go, long before), and leaves its
// last words there.
//
// Files: /run/cairn (root), $XDG_RUNTIME_DIR/cairn or /tmp/cairn-UID, one per mount point, named by its hash:
//   pid, newline, mount point, newline, and at the end "ok" or an error's text.
// One that ended well is removed; an error stays until the next mount there.
// The lock is the kernel's: it ends with the process, however it dies.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "store/base/result.h"

namespace cairn::fuse {

class MountRecord {
 public:
  // kLocked: another process serves this mount point. kIo: no place to write.
  static Result<MountRecord> create(const std::string& mountpoint);
  MountRecord(MountRecord&& other) noexcept;
  MountRecord& operator=(MountRecord&&) = delete;
  ~MountRecord();  // unlocks; without finish(): as if the process had died
  void finish(const Result<>& result);

  // Waits for the process that serves `mountpoint` to end, and returns how that went. kTimeout: it still
  // works. kIo: it died, or could not write back. Nothing recorded: fine.
  static Result<> wait_for_end(const std::string& mountpoint, std::chrono::milliseconds timeout);
  // Of the living process that serves it.
  static std::optional<int> pid(const std::string& mountpoint);

 private:
  MountRecord(int fd, std::string path, std::string head)
      : fd_(fd), path_(std::move(path)), head_(std::move(head)) {}
  int fd_;
  std::string path_;
  std::string head_;
};

}  // namespace cairn::fuse
