#include "store/disk/space_gauge.h"

#include <fmt/format.h>

#include <algorithm>

namespace cairn::disk {
namespace {

// statvfs costs about a microsecond: asked for each extent, and now and then for inline chunks.
constexpr std::uint64_t kRefreshBytes = 64 << 10;

}  // namespace

Result<std::unique_ptr<SpaceGauge>> SpaceGauge::open(Disk& disk, std::string dir,
                                                     std::uint64_t capacity_bytes,
                                                     std::uint64_t reserve_bytes, ExtentStore& extents,
                                                     Index& index) {
  TRY(Space space, disk.space(dir));
  if (capacity_bytes == 0) capacity_bytes = space.total_bytes;
  std::unique_ptr<SpaceGauge> gauge(
      new SpaceGauge(disk, std::move(dir), capacity_bytes, reserve_bytes, extents, index));
  std::lock_guard lock(gauge->mutex_);
  TRYV(gauge->refresh_locked());
  return gauge;
}

Result<> SpaceGauge::refresh_locked() {
  TRY(Space space, disk_.space(dir_));
  file_system_available_ = space.available_bytes;
  index_bytes_ = index_.bytes();
  admitted_since_ = 0;
  return {};
}

std::uint64_t SpaceGauge::available_locked() const {
  auto minus = [](std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; };
  // Extents count at once; what was admitted since the last refresh covers what goes into the index.
  std::uint64_t own = minus(capacity_, extents_.used_bytes() + index_bytes_ + admitted_since_);
  std::uint64_t file_system = minus(file_system_available_, admitted_since_);
  return minus(std::min(own, file_system), reserve_);
}

Result<> SpaceGauge::admit(std::uint64_t bytes) {
  std::lock_guard lock(mutex_);
  std::uint64_t available = available_locked();
  if (admitted_since_ + bytes >= kRefreshBytes || bytes > available) {
    TRYV(refresh_locked());
    available = available_locked();
  }
  if (bytes > available) {
    refused_ = true;
    return fail(Code::kNoSpace,
                fmt::format("target {}: {} more bytes do not fit: {} used of {}, {} free on the file system, "
                            "{} kept in reserve",
                            dir_, bytes, extents_.used_bytes() + index_bytes_, capacity_,
                            file_system_available_, reserve_));
  }
  admitted_since_ += bytes;
  return {};
}

bool SpaceGauge::take_refused() {
  std::lock_guard lock(mutex_);
  return std::exchange(refused_, false);
}

std::uint64_t SpaceGauge::used_bytes() {
  std::lock_guard lock(mutex_);
  return extents_.used_bytes() + index_bytes_ + admitted_since_;
}

std::uint64_t SpaceGauge::available_bytes() {
  std::lock_guard lock(mutex_);
  if (!refresh_locked()) return 0;
  return available_locked();
}

}  // namespace cairn::disk
