// Mounting the file system with FUSE: what `cairn mount` and `cairn umount` call.
//
// /proc/mounts shows type "fuse.cairn" and the metadata server's address as the source. Permissions are
// checked by the kernel (default_permissions). Mounted by root, setuid programs and device nodes work, as on
// a local file system.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "client/client.h"
#include "fuse/kernel_cache.h"

namespace cairn::fuse {

struct MountOptions {
  std::string mountpoint;  // an existing directory
  ClientOptions client;
  bool read_only = false;
  bool allow_other = false;         // other users too; `cairn mount` sets it for root
  std::vector<std::string> kernel;  // further options of mount(8) for the kernel: "noatime", "nodev", ...
  bool foreground = false;          // for the caller's choice between the two functions below
  bool supervised = false;          // a mount in the background whose process dies is mounted again
  std::string log_path;             // "-" stderr; empty: stderr in the foreground, nowhere in the background
  std::string pid_file;             // empty: none
  KernelCache cache;
  // The client ends every call within client.timeout; a request that is still open so much later is answered
  // with ETIMEDOUT, so that no process waits for ever for a defect of ours.
  std::chrono::milliseconds timeout_margin{10'000};
  unsigned threads_max = 0;  // reading requests; 0: one per processor, 2 to 16. They never wait for anything
  // How the client is made: Client::connect. Tests and programs with a client of their own give another.
  std::function<Result<std::unique_ptr<Client>>(const ClientOptions&)> connect =
      [](const ClientOptions& options) { return Client::connect(options); };
};

// Serves in this process until unmounted from outside, or SIGTERM, SIGINT (then it unmounts itself; SIGHUP
// reopens the log). Returns when everything written is flushed: the error says if something could not be.
// `on_serving` is called once, when the mount answers. Blocks those signals in all threads it starts, and in
// the caller until it returns. Before anything is mounted: kNotFound (no such directory, no /dev/fuse),
// kNotDirectory, kExists (mounted already, or a dead mount is in the way), kLocked (another process serves
// it), kPermission, and what the client says (kUnavailable: no metadata server answers).
Result<> run_mount(const MountOptions& options, const std::function<void()>& on_serving = {});

// The same in a process of its own, detached from the terminal. Returns when the mount answers, or with the
// error that kept it from it. Call it while this process has one thread.
//
// Supervised: a second, small process waits for it. When the first one dies of a signal that is not answered
// by an orderly end (a crash, SIGKILL, the kernel out of memory), the dead mount is detached and mounted
// again: who had files open there gets ENOTCONN, everybody else goes on. What was not synced is lost, as with
// any client that dies. SIGTERM, SIGINT and SIGHUP to it are handed on.
Result<> start_mount_daemon(const MountOptions& options);

// kWait: fails with kLocked while something uses it; returns when the mount process has flushed and ended,
// with its error if it could not (limit: ten minutes). kLazy: detaches at once, the process ends when the
// last user is gone; does not wait. Dead mounts can be unmounted too. kNotFound: nothing is mounted there.
// kInvalidArgument: not by Cairn.
enum class Unmount { kWait, kLazy };
Result<> unmount(const std::string& mountpoint, Unmount how);

}  // namespace cairn::fuse
