#include "fuse/mount.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "fuse/frontend.h"
#include "fuse/invalidation.h"
#include "fuse/mount_record.h"
#include "fuse/mount_table.h"
#include "fuse/session.h"
#include "store/base/log.h"

namespace cairn::fuse {
namespace {

// SIGTERM, SIGINT and SIGHUP come as data while this lives.
class Signals {
 public:
  Signals() {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, &before_);
    fd_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~Signals() {
    ::close(fd_);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  int fd() const { return fd_; }
  int take() {
    signalfd_siginfo info{};
    return ::read(fd_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  int fd_;
  sigset_t before_{};
};

// The directory to mount on, checked.
Result<std::string> usable_mountpoint(const std::string& path) {
  TRY(const std::string absolute, absolute_mountpoint(path));
  // Before anything looks at the directory itself: on a mount that hangs, that would hang too.
  auto refuse_mounted = [](const std::string& at) -> Result<> {
    TRY(const auto mounted, find_mount(at));
    if (!mounted || mounted->type != kFsType) return {};
    const bool alive = MountRecord::pid(at).has_value();
    return fail(Code::kExists, alive
                                   ? "'" + at + "' is mounted already (from " + mounted->source + ")"
                                   : "a dead mount is at '" + at + "': run 'cairn umount " + at + "' first");
  };
  TRYV(refuse_mounted(absolute));
  std::array<char, PATH_MAX> real{};
  if (::realpath(absolute.c_str(), real.data()) == nullptr) {
    switch (errno) {
      case ENOENT:
        return fail(Code::kNotFound, "no directory '" + absolute + "': create it first");
      case EACCES:
        return fail(Code::kPermission, "no permission to reach '" + absolute + "'");
      case ENOTCONN:
        return fail(Code::kExists,
                    "a dead mount is at '" + absolute + "': unmount it first (fusermount3 -u)");
      default:
        return fail(Code::kIo, "cannot reach '" + absolute + "': " + std::strerror(errno));
    }
  }
  std::string target(real.data());
  if (target != absolute) TRYV(refuse_mounted(target));
  struct stat st {};
  if (::stat(target.c_str(), &st) != 0)
    return fail(Code::kIo, "cannot stat '" + target + "': " + std::strerror(errno));
  if (!S_ISDIR(st.st_mode)) return fail(Code::kNotDirectory, "'" + target + "' is not a directory");
  return target;
}

bool is_empty(const std::string& directory) {
  std::error_code error;
  return std::filesystem::directory_iterator(directory, error) == std::filesystem::directory_iterator();
}

class PidFile {
 public:
  explicit PidFile(std::string path) : path_(std::move(path)) {}
  ~PidFile() {
    if (written_) ::unlink(path_.c_str());
  }
  PidFile(const PidFile&) = delete;
  Result<> write() {
    if (path_.empty()) return {};
    std::ofstream file(path_);
    file << ::getpid() << '\n';
    file.flush();
    if (!file) return fail(Code::kIo, "cannot write the pid file '" + path_ + "': " + std::strerror(errno));
    written_ = true;
    return {};
  }

 private:
  std::string path_;
  bool written_ = false;
};

std::string joined(const std::vector<std::string>& addresses) {
  std::string all;
  for (const auto& address : addresses) all += (all.empty() ? "" : ",") + address;
  return all;
}

// Blocks until the kernel let go of the mount, or somebody asks this process to end.
void wait_for_end(const Session& session, Signals& signals) {
  for (;;) {
    std::array<pollfd, 2> events = {pollfd{session.ended(), POLLIN, 0}, pollfd{signals.fd(), POLLIN, 0}};
    if (::poll(events.data(), events.size(), -1) < 0 && errno != EINTR) return;
    if (events[0].revents != 0) return log_info("unmounted");
    switch (const int signal = signals.take()) {
      case 0:
        break;
      case SIGHUP:
        if (auto reopened = log_reopen(); !reopened)
          log_warn("log_reopen", "error={}", reopened.error().message());
        break;
      default:
        return log_info("stopping", "signal={}", signal);
    }
  }
}

// Serves from `client` until the end, writes back and destroys it: nothing refers to the session's requests
// then.
Result<> serve(const MountOptions& options, const std::string& target, std::unique_ptr<Client> client,
               Signals& signals, const std::function<void()>& on_serving) {
  FileSystem& files = client->files();
  const std::string source = joined(options.client.meta);
  const Duration deadline =
      options.client.timeout + std::chrono::seconds(10);  // the client's own comes first
  SystemClock clock;
  Requests requests(clock, {.deadline = deadline});
  Frontend front{.files = files,
                 .requests = requests,
                 .cache = options.cache,
                 .open_files = {},
                 .on_serving = on_serving};
  unsigned threads = options.threads_max;
  if (threads == 0) threads = std::clamp(std::thread::hardware_concurrency(), 2U, 16U);
  Session session(front, {.source = source,
                          .read_only = options.read_only,
                          .allow_other = options.allow_other,
                          .kernel = options.kernel,
                          .threads = threads});
  TRYV(session.prepare());
  auto kernel = session_notifier(session.raw());
  Result<> result;
  {
    Invalidation invalidation(*kernel, {});
    files.set_invalidation_sink(&invalidation);
    if (auto root = files.block_on<Entry>(files.getattr(kRootInode)); !root) {
      result = fail(root.error().with("cannot read the cluster's root directory"));
    }
    if (result) result = session.mount(target);
    if (result) {
      log_info("mounted", "mountpoint={} source={} pid={}", log_quote(target), source, ::getpid());
      wait_for_end(session, signals);
      session.stop();
    }
    files.set_invalidation_sink(nullptr);
  }
  files.end_lock_waits();  // they would wait for other hosts
  if (result && !requests.wait_idle(deadline)) {
    result = fail(Code::kTimeout, std::to_string(requests.waiting()) + " requests did not end in time");
  }
  front.open_files.release_all(files);
  if (result) result = files.block_on<void>(files.sync());
  auto closed = client->close();
  if (result && !closed) result = std::move(closed);
  client.reset();
  return result;
}

}  // namespace

Result<> run_mount(const MountOptions& options, const std::function<void()>& on_serving) {
  Signals signals;  // first: threads inherit the mask
  if (!options.log_path.empty()) TRYV(log_open(options.log_path));
  TRY(const std::string target, usable_mountpoint(options.mountpoint));
  if (!is_empty(target)) {
    log_warn("mountpoint_not_empty", "mountpoint={} what=\"its files are hidden while mounted\"",
             log_quote(target));
  }
  std::optional<MountRecord> record;
  if (auto made = MountRecord::create(target); made) {
    record.emplace(std::move(*made));
  } else if (made.error().code() == Code::kLocked) {
    return fail(made.error());
  } else {
    log_warn("mount_record", "error={} what=\"umount will not wait for the flush\"",
             log_quote(made.error().message()));
  }
  PidFile pid_file(options.pid_file);
  TRYV(pid_file.write());
  ClientOptions client_options = options.client;
  // The kernel leaves times of access to the file system, and so what it was told about them.
  if (options.read_only ||
      std::find(options.kernel.begin(), options.kernel.end(), "noatime") != options.kernel.end())
    client_options.access_times = AccessTimes::kNever;
  TRY(auto client, options.connect(std::move(client_options)));
  Result<> result = serve(options, target, std::move(client), signals, on_serving);
  if (!result)
    log_error("mount_ended", "mountpoint={} error={}", log_quote(target),
              log_quote(result.error().to_string()));
  if (record) record->finish(result);
  return result;
}

}  // namespace cairn::fuse
