// start_mount_daemon: run_mount in a detached process that reports back through a pipe when it serves; and
// the process that watches over it.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>

#include "fuse/mount.h"
#include "fuse/mount_table.h"
#include "fuse/session.h"
#include "store/base/bytes.h"
#include "store/base/log.h"

namespace cairn::fuse {
namespace {

// Report: code u16, then the error's text; code 0: it serves. Nothing at all: the process died.
void report(int fd, const Result<>& result) {
  std::string bytes;
  ByteWriter writer(bytes);
  writer.u16(static_cast<std::uint16_t>(result ? Code::kOk : result.error().code()));
  if (!result) writer.raw(result.error().message().data(), result.error().message().size());
  [[maybe_unused]] const ssize_t written = ::write(fd, bytes.data(), bytes.size());
  ::close(fd);
}

Result<> await_report(int fd) {
  std::string bytes;
  std::array<char, 4096> part{};
  for (ssize_t got; (got = ::read(fd, part.data(), part.size())) != 0;) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    bytes.append(part.data(), static_cast<std::size_t>(got));
  }
  ::close(fd);
  ByteReader reader(bytes);
  const Code code = code_from_number(reader.u16());
  if (!reader.ok()) return fail(Code::kInternal, "the mount process died while starting; see its log");
  if (code == Code::kOk) return {};
  return fail(code, std::string(reader.raw(reader.left())));
}

void point_at_null(std::initializer_list<int> fds) {
  const int null = ::open("/dev/null", O_RDWR);
  if (null < 0) return;
  for (int fd : fds) ::dup2(null, fd);
  if (null > STDERR_FILENO) ::close(null);
}

std::string absolute(const std::string& path) {
  if (path.empty() || path == "-") return path;
  std::error_code error;
  const auto full = std::filesystem::absolute(path, error);
  return error ? path : full.string();
}

// The working directory will be another one.
void make_absolute(MountOptions& options) {
  for (std::string* path : {&options.mountpoint, &options.log_path, &options.pid_file})
    *path = absolute(*path);
}

// The detached process. Does not return.
[[noreturn]] void serve_detached(MountOptions options, int report_fd) {
  make_absolute(options);
  [[maybe_unused]] const int moved = ::chdir("/");
  point_at_null({STDIN_FILENO, STDOUT_FILENO});
  bool told = false;
  // stderr stays the terminal's until it serves: fusermount3 writes its complaints there.
  const Result<> result = run_mount(options, [&] {
    if (options.log_path != "-") point_at_null({STDERR_FILENO});
    report(report_fd, {});
    told = true;
  });
  if (!told) report(report_fd, result);
  ::_exit(result ? 0 : 1);
}

sigset_t supervisor_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
  return set;
}

// Waits for the mount process and hands signals on. Its status, as of waitpid(2); `asked`: somebody wants the
// end.
int wait_for(pid_t child, bool& asked) {
  const sigset_t set = supervisor_signals();
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child || (ended < 0 && errno == ECHILD)) return status;
    const int signal = ::sigwaitinfo(&set, nullptr);
    if (signal == SIGTERM || signal == SIGINT) asked = true;
    if (signal > 0 && signal != SIGCHLD) ::kill(child, signal);
  }
}

// False: somebody asked for the end meanwhile.
bool pause_for(std::chrono::seconds seconds) {
  const sigset_t set = supervisor_signals();
  const auto until = std::chrono::steady_clock::now() + seconds;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    const timespec wait{left.count() / 1000, left.count() % 1000 * 1'000'000};
    const int signal = ::sigtimedwait(&set, nullptr, &wait);
    if (signal == SIGTERM || signal == SIGINT) return false;
  }
}

// What keeps a mount from coming back for now, not for good.
bool may_pass(Code code) {
  return code == Code::kUnavailable || code == Code::kTimeout || code == Code::kLocked ||
         code == Code::kInternal;
}

// The detached process of a supervised mount. Does not return.
[[noreturn]] void supervise(MountOptions options, int report_fd) {
  constexpr std::chrono::seconds kPauseMin{1}, kPauseMax{30};
  constexpr std::chrono::minutes kGiveUpAfter{10};  // without having served
  make_absolute(options);
  const std::string &mountpoint = options.mountpoint, &log_path = options.log_path;
  const sigset_t set = supervisor_signals();
  sigset_t before;
  ::sigprocmask(SIG_BLOCK, &set, &before);
  ::signal(SIGCHLD, SIG_DFL);  // ignored by whoever started us, children would leave no status
  auto pause = kPauseMin;
  auto last_served = std::chrono::steady_clock::now();
  for (bool first = true;; first = false) {
    std::array<int, 2> pipe{-1, report_fd};
    if (!first && ::pipe2(pipe.data(), O_CLOEXEC) != 0) ::_exit(1);
    const auto began = std::chrono::steady_clock::now();
    const pid_t child = ::fork();
    if (child == 0) {
      ::sigprocmask(SIG_SETMASK, &before, nullptr);
      if (pipe[0] >= 0) ::close(pipe[0]);
      serve_detached(options, pipe[1]);
    }
    ::close(pipe[1]);
    if (first) {
      [[maybe_unused]] const int moved = ::chdir("/");
      point_at_null({STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
    }
    if (child < 0) ::_exit(1);
    const Result<> serving = first ? Result<>() : await_report(pipe[0]);
    bool asked = false;
    const int status = wait_for(child, asked);
    const bool died = WIFSIGNALED(status);
    const bool gone_for_good = !died && (first || serving || !may_pass(serving.error().code()));
    if (asked || gone_for_good) ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    if (!log_path.empty() && log_path != "-") {
      if (auto opened = log_open(log_path); opened && died)
        log_error("mount_process_died", "mountpoint={} pid={} signal={} what=\"mounting again\"",
                  log_quote(mountpoint), child, WTERMSIG(status));
    }
    if (serving) last_served = std::chrono::steady_clock::now();
    if (std::chrono::steady_clock::now() - last_served > kGiveUpAfter) {
      log_error("mount_given_up", "mountpoint={} error={}", log_quote(mountpoint),
                log_quote(serving.error().to_string()));
      ::_exit(1);
    }
    if (died && serving) {
      const auto left = find_mount(mountpoint);
      if (!left || !*left || (*left)->type != kFsType) ::_exit(1);  // somebody unmounted what was left
      if (auto detached = detach(mountpoint, Detach::kLazy); !detached)
        log_error("dead_mount_stays", "mountpoint={} error={}", log_quote(mountpoint),
                  log_quote(detached.error().message()));
    }
    if (std::chrono::steady_clock::now() - began > std::chrono::minutes(1)) pause = kPauseMin;
    if (!pause_for(pause)) ::_exit(1);
    pause = std::min(pause * 2, kPauseMax);
  }
}

}  // namespace

Result<> start_mount_daemon(const MountOptions& options) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return fail(Code::kIo, std::string("pipe: ") + std::strerror(errno));
  std::fflush(nullptr);  // or both processes would write what is buffered
  const pid_t middle = ::fork();
  if (middle < 0) {
    const int error = errno;
    ::close(pipe[0]);
    ::close(pipe[1]);
    return fail(Code::kIo, std::string("cannot start a process: ") + std::strerror(error));
  }
  if (middle == 0) {
    ::close(pipe[0]);
    ::setsid();
    // The second fork: not a session leader, so it can never get a terminal, and init reaps it.
    const pid_t daemon = ::fork();
    if (daemon == 0) {
      if (options.supervised) supervise(options, pipe[1]);
      serve_detached(options, pipe[1]);
    }
    ::_exit(daemon < 0 ? 1 : 0);
  }
  ::close(pipe[1]);
  while (::waitpid(middle, nullptr, 0) < 0 && errno == EINTR) {
  }
  return await_report(pipe[0]);
}

}  // namespace cairn::fuse
