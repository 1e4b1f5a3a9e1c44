// Attr, Entry and SetAttr of the client as the kernel wants them, and back. Pure functions.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "client/file_system.h"
#include "fuse/lowlevel.h"

namespace cairn::fuse {

// Preferred size of reads and writes (st_blksize): stdio takes it for its buffers, and each costs a round
// trip to us.
constexpr std::uint32_t kPreferredIo = 64 << 10;
// Inode numbers are never reused (they carry the era), so one generation serves for ever.
constexpr std::uint64_t kGeneration = 1;
constexpr std::uint32_t kNameMax = 255;

struct stat to_stat(const Attr& attr);
// `most`: how long the kernel may cache at most, whatever the lease says.
double to_seconds(Duration valid, Duration most);
fuse_entry_param to_entry_param(const Entry& entry, Duration most);
// FUSE_SET_ATTR_* and the new values. "Now" wins over a time beside it.
SetAttr to_set_attr(const struct stat& attr, int to_set);
struct statvfs to_statvfs(const StatFs& statfs);

}  // namespace cairn::fuse
