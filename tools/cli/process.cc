#include "tools/cli/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <thread>

namespace cairn::cli {
namespace fs = std::filesystem;
namespace {

std::string os_error() {
  return std::strerror(errno);
}

bool is_program(int pid, const fs::path& folder, const std::string& program) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::string line((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::string> words;
  for (std::size_t at = 0; at < line.size();) {
    std::size_t end = std::min(line.find('\0', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  std::string config = (folder / "config.toml").string();
  return !words.empty() && fs::path(words[0]).filename() == program &&
         std::find(words.begin(), words.end(), config) != words.end();
}

class Socket {
 public:
  Socket() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

std::optional<std::uint16_t> try_bind(std::uint16_t port) {
  Socket socket;
  int on = 1;
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(socket.fd(), reinterpret_cast<sockaddr*>(&address), size) != 0) return std::nullopt;
  if (::listen(socket.fd(), 1) != 0) return std::nullopt;
  if (::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return std::nullopt;
  return ntohs(address.sin_port);
}

}  // namespace

Result<fs::path> program_folder() {
  std::error_code error;
  fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail(Code::kIo, fmt::format("/proc/self/exe cannot be read: {}", error.message()));
  return self.parent_path();
}

std::optional<int> running_pid(const fs::path& folder, const std::string& program) {
  std::ifstream file(folder / "pid");
  int pid = 0;
  if (!(file >> pid) || pid <= 0) return std::nullopt;
  if (!is_program(pid, folder, program)) return std::nullopt;
  return pid;
}

Result<int> start_detached(const fs::path& folder, const fs::path& program) {
  std::string log = (folder / "log").string();
  std::string config = (folder / "config.toml").string();
  int log_fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) return fail(Code::kIo, fmt::format("log file '{}' cannot be opened: {}", log, os_error()));
  int status_pipe[2];
  if (::pipe2(status_pipe, O_CLOEXEC) != 0) {
    ::close(log_fd);
    return fail(Code::kIo, fmt::format("pipe: {}", os_error()));
  }
  pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    int null_fd = ::open("/dev/null", O_RDONLY);
    ::dup2(null_fd, 0);
    ::dup2(log_fd, 1);
    ::dup2(log_fd, 2);
    ::execl(program.c_str(), program.c_str(), "--config", config.c_str(), static_cast<char*>(nullptr));
    int error = errno;
    [[maybe_unused]] ssize_t written = ::write(status_pipe[1], &error, sizeof error);
    ::_exit(127);
  }
  ::close(log_fd);
  ::close(status_pipe[1]);
  int exec_error = 0;
  bool failed = child < 0 || ::read(status_pipe[0], &exec_error, sizeof exec_error) == sizeof exec_error;
  ::close(status_pipe[0]);
  if (failed) {
    if (child > 0) ::waitpid(child, nullptr, 0);
    return fail(Code::kIo, fmt::format("'{}' cannot be started: {}", program.string(),
                                       child < 0 ? os_error() : std::strerror(exec_error)));
  }
  std::ofstream pid(folder / "pid", std::ios::trunc);
  pid << child << "\n";
  pid.close();
  if (!pid) return fail(Code::kIo, fmt::format("'{}' cannot be written", (folder / "pid").string()));
  return child;
}

Result<> stop(const fs::path& folder, const std::string& program, std::chrono::seconds timeout) {
  std::optional<int> pid = running_pid(folder, program);
  if (pid) {
    ::kill(*pid, SIGTERM);
    auto end = std::chrono::steady_clock::now() + timeout;
    while (running_pid(folder, program)) {
      ::waitpid(*pid, nullptr, WNOHANG);  // only if it is our own child
      if (std::chrono::steady_clock::now() > end)
        return fail(Code::kTimeout,
                    fmt::format("{} (pid {}) has not stopped after {} s; see {}, or use --force", program,
                                *pid, timeout.count(), (folder / "log").string()));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  std::error_code ignored;  // the file may never have been written
  fs::remove(folder / "pid", ignored);
  return {};
}

void kill_now(int pid) {
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

std::string log_tail(const fs::path& folder, std::size_t lines) {
  std::ifstream file(folder / "log");
  std::deque<std::string> tail;
  for (std::string line; std::getline(file, line);) {
    tail.push_back(line);
    if (tail.size() > lines) tail.pop_front();
  }
  std::string out;
  for (const std::string& line : tail) out += "    " + line + "\n";
  return out.empty() ? "    (the log is empty)\n" : out;
}

Result<std::uint16_t> free_port(std::uint16_t preferred) {
  if (preferred != 0)
    if (auto port = try_bind(preferred)) return *port;
  if (auto port = try_bind(0)) return *port;
  return fail(Code::kIo, "no free TCP port on 127.0.0.1");
}

}  // namespace cairn::cli
