// The table of FUSE handlers, and what is agreed with the kernel at the start.
#pragma once

#include "fuse/frontend.h"
#include "fuse/lowlevel.h"

namespace cairn::fuse {

constexpr unsigned kIoMax = 1 << 20;  // of one read or write request: the most that the kernel sends

// All handlers; the session's userdata must be a Frontend.
//
// Not there, on purpose, so that the kernel uses its own way or tells the caller: access
// (default_permissions), fallocate, copy_file_range, lseek, ioctl,
// O_TMPFILE.
fuse_lowlevel_ops operations();

}  // namespace cairn::fuse
