#include "fuse/mount_record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "store/base/bytes.h"
#include "store/base/checksum.h"
#include "store/base/ids.h"

namespace cairn::fuse {
namespace {

std::string folder() {
  if (::geteuid() == 0) return "/run/cairn";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/') return std::string(runtime) + "/cairn";
  return "/tmp/cairn-" + std::to_string(::geteuid());
}

std::string file_of(const std::string& mountpoint) {
  return folder() + "/mount-" + hex64(checksum64(as_bytes(mountpoint)));
}

// Ours alone: in /tmp anybody could have made it first.
Result<> make_folder() {
  const std::string path = folder();
  struct stat st {};
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(Code::kIo, "cannot create " + path + ": " + std::strerror(errno));
  }
  if (::lstat(path.c_str(), &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != ::geteuid()) {
    return fail(Code::kPermission, path + " is not a directory of this user: remove it");
  }
  return {};
}

// Locks of the open file description: they can be tested without taking them, so that who only looks disturbs
// nobody.
struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}
bool is_held(int fd) {
  struct flock lock = whole_file(F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

std::string read_all(int fd) {
  std::string text(4096, '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

}  // namespace

Result<MountRecord> MountRecord::create(const std::string& mountpoint) {
  TRYV(make_folder());
  const std::string path = file_of(mountpoint);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return fail(Code::kIo, "cannot open " + path + ": " + std::strerror(errno));
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    const std::string text = read_all(fd);
    ::close(fd);
    return fail(Code::kLocked, "process " + text.substr(0, text.find('\n')) + " serves '" + mountpoint +
                                   "' already, or still writes back: wait, or 'cairn umount' it");
  }
  struct stat st {};
  if (::fstat(fd, &st) == 0 && st.st_nlink == 0) {  // its owner removed it between open and lock
    ::close(fd);
    return create(mountpoint);
  }
  MountRecord record(fd, path, std::to_string(::getpid()) + "\n" + mountpoint + "\n");
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, record.head_.data(), record.head_.size(), 0) < 0) {
    return fail(Code::kIo, "cannot write " + path + ": " + std::strerror(errno));
  }
  return record;
}

MountRecord::MountRecord(MountRecord&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), head_(std::move(other.head_)) {}

MountRecord::~MountRecord() {
  if (fd_ >= 0) ::close(fd_);
}

void MountRecord::finish(const Result<>& result) {
  const std::string text = head_ + (result ? "ok" : result.error().message()) + "\n";
  // Nothing to do about a failure: who waits then sees that no last word was left.
  [[maybe_unused]] const ssize_t written = ::pwrite(fd_, text.data(), text.size(), 0);
  // While locked, so that the name is still ours. Who waits has it open; who comes later finds nothing: all
  // is well.
  if (result) ::unlink(path_.c_str());
}

std::optional<int> MountRecord::pid(const std::string& mountpoint) {
  const int fd = ::open(file_of(mountpoint).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  const bool alive = is_held(fd);
  const std::string text = read_all(fd);
  ::close(fd);
  const int pid = std::atoi(text.c_str());
  return alive && pid > 0 ? std::optional(pid) : std::nullopt;
}

Result<> MountRecord::wait_for_end(const std::string& mountpoint, std::chrono::milliseconds timeout) {
  const std::string path = file_of(mountpoint);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const auto until = std::chrono::steady_clock::now() + timeout;
  bool ended = !is_held(fd);
  while (!ended && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ended = !is_held(fd);
  }
  const std::string text = read_all(fd);
  ::close(fd);
  const auto first = text.find('\n');
  const std::string pid = text.substr(0, first);
  if (!ended) {
    return fail(Code::kTimeout, "unmounted, but process " + pid + " still writes back what was written to '" +
                                    mountpoint + "'; see its log");
  }
  const auto second = first == std::string::npos ? first : text.find('\n', first + 1);
  std::string last = second == std::string::npos ? std::string() : text.substr(second + 1);
  if (!last.empty() && last.back() == '\n') last.pop_back();
  if (last == "ok") return {};
  if (last.empty()) {
    return fail(Code::kIo,
                "the process that served '" + mountpoint + "' (" + pid +
                    ") died before it had written back everything; what was not fsynced may be lost");
  }
  return fail(Code::kIo, "writing back '" + mountpoint + "' failed: " + last);
}

}  // namespace cairn::fuse
