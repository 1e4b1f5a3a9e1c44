#include "client/access_time.h"

namespace cairn::client {
namespace {
constexpr std::int64_t kDayNs = 24LL * 3600 * 1'000'000'000;
}

bool note_access(const FileContext& context, Inode& inode) {
  if (context.options.access_times == AccessTimes::kNever) return false;
  if (!inode.file || !inode.have_attr || inode.recalling || !context.inodes.usable(inode)) return false;
  Attr& attr = inode.attr.attr;
  const std::int64_t now = context.runtime.clock().wall_ns();
  const bool due =
      attr.atime_ns <= attr.mtime_ns || attr.atime_ns <= attr.ctime_ns || attr.atime_ns <= now - kDayNs;
  if (!due || now <= attr.atime_ns) return false;
  attr.atime_ns = now;
  inode.file->accessed = true;
  return true;
}

}  // namespace cairn::client
