#include "fuse/operations.h"

#include <algorithm>

#include "store/base/log.h"

namespace cairn::fuse {
namespace {

// What is wanted, and why; everything else that libfuse turns on by itself is turned off.
constexpr unsigned kWanted =
    FUSE_CAP_ASYNC_READ |       // read-ahead in parallel
    FUSE_CAP_ASYNC_DIO |        // O_DIRECT in parallel
    FUSE_CAP_ATOMIC_O_TRUNC |   // open(O_TRUNC) is one request, not two
    FUSE_CAP_AUTO_INVAL_DATA |  // pages go when size or mtime changed elsewhere, even if no recall reached
                                // the kernel
    FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |  // `ls -l` and `find` without a lookup for each name
    FUSE_CAP_PARALLEL_DIROPS |                          // lookups and listings of one directory side by side
    FUSE_CAP_EXPORT_SUPPORT |  // inodes by number, for NFS servers and name_to_handle_at
    FUSE_CAP_CACHE_SYMLINKS |  // a symbolic link never changes its target
    FUSE_CAP_POSIX_ACL |       // the kernel asks for access control lists and obeys them
    FUSE_CAP_DONT_MASK;        // a default list counts instead of the umask: the metadata server decides
// Not wanted:
//   WRITEBACK_CACHE    hides writes from us and ignores remote sizes for good
//   EXPLICIT_INVAL_DATA  pages would outlive a lease that ended while we were stopped
//   SPLICE_*           bytes are kept here, so there is nothing to hand through a pipe; two system calls more
//   for each HANDLE_KILLPRIV    the kernel clears setuid bits itself, by ordinary changes of mode

// Only of file systems that share locks with other mounts; else the kernel does it by itself, between local
// processes.
constexpr unsigned kLocks = FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS;

void handle_init(void* userdata, fuse_conn_info* conn) {
  auto* front = static_cast<Frontend*>(userdata);
  conn->want = (kWanted | (front->files.shares_locks() ? kLocks : 0)) & conn->capable;
  conn->max_write = kIoMax;
  conn->max_read = kIoMax;  // as the mount option says
  conn->max_readahead =
      std::max(conn->max_readahead, 16U << 20);  // the kernel's own limit is set after the mount
  conn->max_background = 256;                    // read-ahead, O_DIRECT pieces, releases
  conn->congestion_threshold = 192;
  conn->time_gran = 1;
  log_info("fuse_init", "protocol={}.{} capable={:#x} want={:#x} max_write={}", conn->proto_major,
           conn->proto_minor, conn->capable, conn->want, conn->max_write);
  if (front->on_serving) front->on_serving();
}

}  // namespace

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = handle_init;
  add_name_handlers(ops);
  add_attribute_handlers(ops);
  add_file_handlers(ops);
  add_directory_handlers(ops);
  add_lock_handlers(ops);
  return ops;
}

}  // namespace cairn::fuse
