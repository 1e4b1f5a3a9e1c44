#include "store/disk/ballast.h"

#include "store/base/log.h"

namespace cairn::disk {

Result<std::unique_ptr<Ballast>> Ballast::open(Disk& disk, const std::string& path, std::uint64_t bytes) {
  TRY(auto file, disk.open(path, Disk::Open::kUpdate));
  std::unique_ptr<Ballast> ballast(new Ballast(path, std::move(file), bytes));
  ballast->take();
  return ballast;
}

bool Ballast::give() {
  std::lock_guard lock(mutex_);
  if (!held_) return false;
  held_ = false;
  log_error("file_system_full",
            "ballast={} bytes={} note=\"only removals are taken until there is space again\"", path_, bytes_);
  return file_->truncate(0).has_value();
}

bool Ballast::take() {
  std::lock_guard lock(mutex_);
  if (held_) return true;
  held_ = file_->allocate(0, bytes_).has_value();
  if (!held_) (void)file_->truncate(0);  // what a failed attempt may have taken
  return held_;
}

}  // namespace cairn::disk
