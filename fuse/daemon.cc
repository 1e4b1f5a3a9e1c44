// start_mount_daemon: run_mount in a detached process that reports back through a pipe when it serves.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>

#include "fuse/mount.h"
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

// The detached process. Does not return.
[[noreturn]] void serve_detached(MountOptions options, int report_fd) {
  options.mountpoint = absolute(options.mountpoint);  // the working directory is left below
  options.log_path = absolute(options.log_path);
  options.pid_file = absolute(options.pid_file);
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
    if (daemon == 0) serve_detached(options, pipe[1]);
    ::_exit(daemon < 0 ? 1 : 0);
  }
  ::close(pipe[1]);
  while (::waitpid(middle, nullptr, 0) < 0 && errno == EINTR) {
  }
  return await_report(pipe[0]);
}

}  // namespace cairn::fuse
