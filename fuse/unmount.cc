#include <chrono>
#include <filesystem>

#include "fuse/mount.h"
#include "fuse/mount_record.h"
#include "fuse/mount_table.h"
#include "fuse/session.h"

namespace cairn::fuse {
namespace {

// As given, or through a symbolic link to it. Following one is safe only when nothing of ours is mounted at
// the path itself.
Result<Mounted> find_ours(const std::string& path) {
  TRY(std::string absolute, absolute_mountpoint(path));
  TRY(auto mounted, find_mount(absolute));
  if (!mounted) {
    std::error_code error;
    const auto real = std::filesystem::canonical(absolute, error);
    if (!error && real != absolute) {
      TRY(mounted, find_mount(real.string()));
    }
  }
  if (!mounted) return fail(Code::kNotFound, "nothing is mounted at '" + absolute + "'");
  if (mounted->type != kFsType) {
    return fail(Code::kInvalidArgument,
                "'" + absolute + "' is a mount of type " + mounted->type + ", not of Cairn");
  }
  return std::move(*mounted);
}

}  // namespace

Result<> unmount(const std::string& mountpoint, Unmount how) {
  TRY(const Mounted mounted, find_ours(mountpoint));
  const auto server = MountRecord::pid(mounted.mountpoint);  // none: dead, nothing to wait for
  auto gone = detach(mounted.mountpoint, how == Unmount::kLazy ? Detach::kLazy : Detach::kIfUnused);
  if (!gone && gone.error().code() == Code::kLocked) {
    return fail(Code::kLocked, "'" + mounted.mountpoint + "' is in use (see: fuser -vm " +
                                   mounted.mountpoint + "); close what uses it, or detach it with --lazy");
  }
  TRYV(std::move(gone));
  if (!server || how == Unmount::kLazy) return {};
  return MountRecord::wait_for_end(mounted.mountpoint, std::chrono::minutes(10));
}

}  // namespace cairn::fuse
