// How much the kernel may cache of a mount.
#pragma once

#include <chrono>

#include "store/base/clock.h"

namespace cairn::fuse {

struct KernelCache {
  // The longest that the kernel may keep names and attributes, whatever the lease allows. 0: it asks each
  // time.
  Duration attributes_max = std::chrono::hours(1);
  bool pages = true;     // file data between opens, where the client says that it is still right
  bool listings = true;  // directory listings
};

}  // namespace cairn::fuse
