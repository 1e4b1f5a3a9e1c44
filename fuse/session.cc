#include "fuse/session.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>

#include "fuse/mount_table.h"
#include "fuse/operations.h"
#include "store/base/log.h"

extern char** environ;

namespace cairn::fuse {
namespace {

// libfuse reports trouble as text only: kept for the error, and logged.
std::mutex last_words_mutex;
std::string last_words;

void keep_words(fuse_log_level, const char* format, va_list args) {
  std::array<char, 512> line{};
  std::vsnprintf(line.data(), line.size(), format, args);
  std::string text(line.data());
  while (!text.empty() && text.back() == '\n') text.pop_back();
  log_warn("libfuse", "message={}", log_quote(text));
  std::lock_guard lock(last_words_mutex);
  last_words = std::move(text);
}

std::string take_words() {
  std::lock_guard lock(last_words_mutex);
  return std::exchange(last_words, {});
}

// A comma would end the option, a backslash is libfuse's escape.
std::string escape_option(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

Result<> check_device() {
  const int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd >= 0) {
    ::close(fd);
    return {};
  }
  switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return fail(
          Code::kNotFound,
          "no /dev/fuse here: load the kernel's module (modprobe fuse), or start the container with --device "
          "/dev/fuse --cap-add SYS_ADMIN");
    case EACCES:
    case EPERM:
      return fail(Code::kPermission,
                  "no permission to open /dev/fuse: ask for access to it, or mount as root");
    default:
      return fail(Code::kIo, std::string("cannot open /dev/fuse: ") + std::strerror(errno));
  }
}

// Breaks a worker out of its read.
void ignore_signal(int) {}
constexpr int kWakeSignal = SIGUSR2;
void install_wake_signal() {
  struct sigaction action {};
  action.sa_handler = ignore_signal;  // without SA_RESTART
  sigaction(kWakeSignal, &action, nullptr);
}

// The kernel reads ahead 128 KiB unless told; requests are up to 1 MiB. Only root may say so: others live
// with it.
void raise_read_ahead(const std::string& mountpoint) {
  const auto mounted = find_mount(mountpoint);
  if (!mounted || !*mounted) return;
  std::ofstream setting("/sys/class/bdi/" + (*mounted)->device + "/read_ahead_kb");
  setting << 8192;
  setting.flush();
  if (!setting) log_debug("read_ahead_kept", "device={}", (*mounted)->device);
}

Result<> run_fusermount(const std::string& mountpoint, bool lazy) {
  std::string program = "fusermount3", u = "-u", z = "-z", dashes = "--", at = mountpoint;
  std::vector<char*> args = {program.data(), u.data()};
  if (lazy) args.push_back(z.data());
  args.insert(args.end(), {dashes.data(), at.data(), nullptr});
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return fail(Code::kIo, std::string("pipe: ") + std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDERR_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, args.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(out[1]);
  std::string said;
  std::array<char, 512> part{};
  for (ssize_t got; error == 0 && (got = ::read(out[0], part.data(), part.size())) > 0;)
    said.append(part.data(), got);
  ::close(out[0]);
  if (error != 0)
    return fail(Code::kIo, std::string("cannot run fusermount3 (package fuse3): ") + std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status == 0) return {};
  while (!said.empty() && said.back() == '\n') said.pop_back();
  const bool busy = said.find("busy") != std::string::npos;
  return fail(busy ? Code::kLocked : Code::kIo, said.empty() ? "fusermount3 failed" : said);
}

}  // namespace

Result<> detach(const std::string& mountpoint, Detach how) {
  if (::geteuid() != 0) return run_fusermount(mountpoint, how != Detach::kIfUnused);
  int flags = UMOUNT_NOFOLLOW;
  if (how != Detach::kIfUnused) flags |= MNT_DETACH;
  if (how == Detach::kForce) flags |= MNT_FORCE;  // ends the connection: nobody waits for us any more
  if (::umount2(mountpoint.c_str(), flags) == 0) return {};
  switch (errno) {
    case EBUSY:
      return fail(Code::kLocked, "'" + mountpoint + "' is in use");
    case EPERM:
      return fail(Code::kPermission, "no permission to unmount '" + mountpoint + "'");
    case EINVAL:
    case ENOENT:
      return fail(Code::kNotFound, "'" + mountpoint + "' is not mounted");
    default:
      return fail(Code::kIo, "unmounting '" + mountpoint + "' failed: " + std::strerror(errno));
  }
}

Session::Session(Frontend& front, Options options)
    : front_(front),
      options_(std::move(options)),
      ops_(operations()),
      ended_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Session::~Session() {
  stop();
  if (session_ != nullptr) {
    // Closes the device and frees what mount() allocated. Only when the kernel has let go: otherwise libfuse
    // would unmount by path once more, whatever is mounted there now.
    pollfd device{.fd = fuse_session_fd(session_), .events = 0, .revents = 0};
    if (::poll(&device, 1, 0) == 1 && (device.revents & POLLERR)) fuse_session_unmount(session_);
    fuse_session_destroy(session_);
  }
  ::close(ended_);
}

Result<> Session::prepare() {
  TRYV(check_device());
  fuse_set_log_func(keep_words);
  install_wake_signal();
  std::string wanted = "default_permissions,subtype=cairn,fsname=" + escape_option(options_.source) +
                       ",max_read=" + std::to_string(kIoMax);
  if (options_.read_only) wanted += ",ro";
  if (options_.allow_other) wanted += ",allow_other";
  // As for any local file system that root mounts; fusermount3 always sets nosuid and nodev for others.
  if (::geteuid() == 0) wanted += ",suid,dev";
  for (const std::string& option : options_.kernel) wanted += "," + escape_option(option);
  std::string name = "cairn", dash = "-o";
  std::vector<char*> argv = {name.data(), dash.data(), wanted.data()};
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  take_words();
  session_ = fuse_session_new(&args, &ops_, sizeof ops_, &front_);
  fuse_opt_free_args(&args);
  if (session_ == nullptr)
    return fail(Code::kInternal, "libfuse refuses the options '" + wanted + "': " + take_words());
  return {};
}

Result<> Session::mount(const std::string& mountpoint) {
  take_words();
  if (fuse_session_mount(session_, mountpoint.c_str()) != 0) {
    const int error = errno;
    const std::string words = take_words();
    return fail(error == EPERM || error == EACCES ? Code::kPermission : Code::kIo,
                "cannot mount at '" + mountpoint + "': " + (words.empty() ? std::strerror(error) : words));
  }
  mountpoint_ = mountpoint;
  serving_ = options_.threads;
  for (unsigned i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this, i] {
      pthread_setname_np(pthread_self(), ("fuse-" + std::to_string(i)).c_str());
      serve();
    });
  }
  raise_read_ahead(mountpoint);
  return {};
}

void Session::serve() {
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, kWakeSignal);
  pthread_sigmask(SIG_UNBLOCK, &wake, nullptr);
  fuse_buf buffer{};  // libfuse allocates it once, at the first read
  while (!fuse_session_exited(session_)) {
    const int got = fuse_session_receive_buf(session_, &buffer);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0) break;  // unmounted
    fuse_session_process_buf(session_, &buffer);
  }
  std::free(buffer.mem);
  if (--serving_ == 0) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(ended_, &one, sizeof one);
  }
}

void Session::join() {
  while (serving_ != 0) {
    // A signal between the check and the read would be missed, so it is sent until it worked.
    for (auto& thread : threads_) ::pthread_kill(thread.native_handle(), kWakeSignal);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

void Session::stop() {
  if (session_ == nullptr || threads_.empty()) return;
  const bool gone = serving_ == 0;  // unmounted from outside
  if (!gone) {
    if (auto quiet = detach(mountpoint_, Detach::kIfUnused); !quiet) {
      log_warn("mount_busy", "mountpoint={} error={} what=\"detached; who still uses it gets ENOTCONN\"",
               log_quote(mountpoint_), log_quote(quiet.error().message()));
      if (auto forced = detach(mountpoint_, Detach::kForce); !forced) {
        log_error("unmount_failed", "mountpoint={} error={}", log_quote(mountpoint_),
                  log_quote(forced.error().message()));
      }
    }
    fuse_session_exit(session_);
  }
  join();
}

}  // namespace cairn::fuse
