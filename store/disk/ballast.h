// Disk space set aside for the worst moment: the file system is full (others share it) and RocksDB must still
// write its log, or nothing could be deleted. RocksDB does not survive a failed log write well, so it shall
// never see one: the file operation that meets a full disk gives the ballast away and tries again
// (rocks_fs.h). From then on the engine takes only removals, until the ballast could be taken again.
// Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "store/disk/disk.h"

namespace cairn::disk {

class Ballast {
 public:
  // Takes `bytes` in the file `path` if the file system has them; held() tells.
  static Result<std::unique_ptr<Ballast>> open(Disk& disk, const std::string& path, std::uint64_t bytes);
  bool held() const { return held_.load(std::memory_order_acquire); }
  // Gives the space back to the file system. False: it was given already.
  bool give();
  // Takes it again if it is not held; false: still no space.
  bool take();

 private:
  Ballast(std::string path, std::unique_ptr<File> file, std::uint64_t bytes)
      : path_(std::move(path)), file_(std::move(file)), bytes_(bytes) {}
  const std::string path_;
  const std::unique_ptr<File> file_;
  const std::uint64_t bytes_;
  std::mutex mutex_;
  std::atomic<bool> held_{false};
};

}  // namespace cairn::disk
