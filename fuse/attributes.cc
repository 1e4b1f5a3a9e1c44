#include "fuse/attributes.h"

#include <algorithm>
#include <limits>

namespace cairn::fuse {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

timespec to_timespec(std::int64_t ns) {
  std::int64_t seconds = ns / kSecond, rest = ns % kSecond;
  if (rest < 0) {  // before 1970
    rest += kSecond;
    --seconds;
  }
  return {static_cast<time_t>(seconds), static_cast<long>(rest)};
}

// Times are 64-bit nanoseconds: years 1678 to 2262. Beyond: the nearest.
std::int64_t from_timespec(const timespec& t) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max() / kSecond - 1;
  return std::clamp<std::int64_t>(t.tv_sec, -most, most) * kSecond + t.tv_nsec;
}

}  // namespace

struct stat to_stat(const Attr& attr) {
  struct stat st {};
  st.st_ino = attr.inode.value();
  st.st_mode = attr.mode;
  st.st_nlink = attr.nlink;
  st.st_uid = attr.uid;
  st.st_gid = attr.gid;
  st.st_rdev = attr.rdev;
  st.st_size = static_cast<off_t>(attr.size);
  st.st_blksize = kPreferredIo;
  st.st_blocks = static_cast<blkcnt_t>((attr.bytes + 511) / 512);
  st.st_atim = to_timespec(attr.atime_ns);
  st.st_mtim = to_timespec(attr.mtime_ns);
  st.st_ctim = to_timespec(attr.ctime_ns);
  return st;
}

double to_seconds(Duration valid, Duration most) {
  return std::chrono::duration<double>(std::clamp(valid, Duration::zero(), most)).count();
}

fuse_entry_param to_entry_param(const Entry& entry, Duration most) {
  fuse_entry_param param{};
  param.ino = entry.attr.inode.value();
  param.generation = kGeneration;
  param.attr = to_stat(entry.attr);
  param.attr_timeout = param.entry_timeout = to_seconds(entry.valid, most);
  return param;
}

SetAttr to_set_attr(const struct stat& attr, int to_set) {
  SetAttr change;
  auto take = [&](int bit, std::uint32_t as) {
    if (to_set & bit) change.valid |= as;
    return (to_set & bit) != 0;
  };
  if (take(FUSE_SET_ATTR_MODE, kSetMode)) change.attr.mode = attr.st_mode;
  if (take(FUSE_SET_ATTR_UID, kSetUid)) change.attr.uid = attr.st_uid;
  if (take(FUSE_SET_ATTR_GID, kSetGid)) change.attr.gid = attr.st_gid;
  if (take(FUSE_SET_ATTR_SIZE, kSetSize)) change.attr.size = static_cast<std::uint64_t>(attr.st_size);
  if (!take(FUSE_SET_ATTR_ATIME_NOW, kSetAtimeNow) && take(FUSE_SET_ATTR_ATIME, kSetAtime))
    change.attr.atime_ns = from_timespec(attr.st_atim);
  if (!take(FUSE_SET_ATTR_MTIME_NOW, kSetMtimeNow) && take(FUSE_SET_ATTR_MTIME, kSetMtime))
    change.attr.mtime_ns = from_timespec(attr.st_mtim);
  if (take(FUSE_SET_ATTR_CTIME, kSetCtime)) change.attr.ctime_ns = from_timespec(attr.st_ctim);
  return change;
}

struct statvfs to_statvfs(const StatFs& statfs) {
  constexpr std::uint64_t block = 4096;
  struct statvfs out {};
  out.f_bsize = block;
  out.f_frsize = block;
  out.f_blocks = statfs.total_bytes / block;
  out.f_bfree = out.f_bavail = statfs.available_bytes / block;
  // Inodes are not a fixed stock: as many as there are bytes for, at one block each.
  out.f_ffree = out.f_favail = out.f_bfree;
  if (statfs.files_max != 0) {  // but under a quota
    out.f_ffree = out.f_favail =
        std::min<fsfilcnt_t>(out.f_ffree, statfs.files_max - std::min(statfs.files_max, statfs.files));
  }
  out.f_files = statfs.files + out.f_ffree;
  out.f_namemax = kNameMax;
  return out;
}

}  // namespace cairn::fuse
