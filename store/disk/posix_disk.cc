#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <thread>
#include <utility>

#include "store/disk/disk.h"

namespace cairn::disk {
namespace {

Code code_of(int error) {
  switch (error) {
    case ENOENT:
      return Code::kNotFound;
    case ENOSPC:
    case EDQUOT:
      return Code::kNoSpace;
    default:
      return Code::kIo;
  }
}

std::unexpected<Error> os_error(std::string_view operation, const std::string& path, int error = errno) {
  return fail(code_of(error), fmt::format("{} {}: {}", operation, path, std::strerror(error)));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_retry(const char* path, int flags) {
  int fd;
  do fd = ::open(path, flags | O_CLOEXEC, 0644);
  while (fd < 0 && errno == EINTR);
  return fd;
}

// Direct I/O needs memory, offset and length in these units. The logical block of a disk is at most that.
constexpr std::uint64_t kDirectUnit = 4096;
// Below that a copy into the page cache costs less than waiting for the device.
constexpr std::size_t kDirectMin = 128 << 10;

class PosixFile final : public File {
 public:
  // `direct_fd`: the same file opened with O_DIRECT, or -1.
  PosixFile(int fd, int direct_fd, std::string path)
      : fd_(fd), direct_fd_(direct_fd), direct_(direct_fd >= 0), path_(std::move(path)) {}

  Result<std::size_t> pread(std::uint64_t offset, MutableBytes to) override {
    std::size_t done = 0;
    while (done < to.size()) {
      ssize_t n = ::pread(fd_.get(), to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return os_error("read", path_);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Result<> pwrite(std::uint64_t offset, Bytes from) override {
    if (from.size() >= kDirectMin && direct_.load(std::memory_order_relaxed))
      TRYV(pwrite_direct(offset, from));
    while (!from.empty()) {
      ssize_t n = ::pwrite(fd_.get(), from.data(), from.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return os_error("write", path_);
      offset += static_cast<std::uint64_t>(n);
      from = from.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  Result<> pwritev(std::uint64_t offset, std::span<const Bytes> pieces) override {
    std::array<iovec, 16> vectors;
    while (!pieces.empty()) {
      std::size_t count = std::min(pieces.size(), vectors.size());
      std::size_t total = 0;
      for (std::size_t i = 0; i < count; ++i) {
        vectors[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};
        total += pieces[i].size();
      }
      ssize_t n;
      do n = ::pwritev(fd_.get(), vectors.data(), static_cast<int>(count), static_cast<off_t>(offset));
      while (n < 0 && errno == EINTR);
      if (n < 0) return os_error("write", path_);
      if (static_cast<std::size_t>(n) < total) {  // rare: go on piece by piece
        std::size_t skip = static_cast<std::size_t>(n);
        std::uint64_t at = offset;
        for (std::size_t i = 0; i < count; ++i) {
          std::size_t done = std::min(skip, pieces[i].size());
          TRYV(pwrite(at + done, pieces[i].subspan(done)));
          skip -= done;
          at += pieces[i].size();
        }
      }
      offset += total;
      pieces = pieces.subspan(count);
    }
    return {};
  }

  Result<> sync() override {
    // Never retried: after a failure the kernel may have dropped the dirty pages, and a second call would
    // succeed.
    if (::fdatasync(fd_.get()) != 0) return os_error("fdatasync", path_);
    return {};
  }

  Result<> truncate(std::uint64_t size) override {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) return os_error("truncate", path_);
    return {};
  }

  Result<> allocate(std::uint64_t offset, std::uint64_t length) override {
    return fallocate(FALLOC_FL_KEEP_SIZE, offset, length, "allocate");
  }

  Result<> punch(std::uint64_t offset, std::uint64_t length) override {
    return fallocate(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length, "punch hole in");
  }

  Result<std::uint64_t> size() override {
    struct stat info;
    if (::fstat(fd_.get(), &info) != 0) return os_error("stat", path_);
    return static_cast<std::uint64_t>(info.st_size);
  }

 private:
  // Takes from the front of `from` what it wrote. The kernel keeps the page cache in step.
  Result<> pwrite_direct(std::uint64_t& offset, Bytes& from) {
    if (offset % kDirectUnit != 0 || reinterpret_cast<std::uintptr_t>(from.data()) % kDirectUnit != 0)
      return {};
    while (from.size() >= kDirectUnit) {
      const std::size_t whole = from.size() / kDirectUnit * kDirectUnit;
      ssize_t n = ::pwrite(direct_fd_.get(), from.data(), whole, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EINVAL) {  // this file system can't: through the page cache from now on
        direct_.store(false, std::memory_order_relaxed);
        return {};
      }
      if (n < 0) return os_error("write", path_);
      offset += static_cast<std::uint64_t>(n);
      from = from.subspan(static_cast<std::size_t>(n));
      if (static_cast<std::size_t>(n) % kDirectUnit != 0) return {};
    }
    return {};
  }

  Result<> fallocate(int mode, std::uint64_t offset, std::uint64_t length, std::string_view what) {
    if (length == 0) return {};
    int r;
    do r = ::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    while (r != 0 && errno == EINTR);
    if (r == 0) return {};
    if (errno == EOPNOTSUPP || errno == ENOSYS)
      return fail(Code::kUnimplemented, fmt::format("{} {}: not supported here", what, path_));
    return os_error(what, path_);
  }

  Descriptor fd_;
  Descriptor direct_fd_;
  std::atomic<bool> direct_;
  std::string path_;
};

class PosixLock final : public DiskLock {
 public:
  explicit PosixLock(int fd) : fd_(fd) {}

 private:
  Descriptor fd_;
};

std::string read_small(int fd) {
  std::array<char, 64> text;
  ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  std::string_view view(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
  return std::string(view.substr(0, view.find_first_of(" \n")));
}

}  // namespace

Result<std::unique_ptr<File>> PosixDisk::open(const std::string& path, Open mode) {
  int flags = O_RDONLY;
  if (mode == Open::kUpdate || mode == Open::kBulk) flags = O_RDWR | O_CREAT;
  if (mode == Open::kEmpty) flags = O_RDWR | O_CREAT | O_TRUNC;
  int fd = open_retry(path.c_str(), flags);
  if (fd < 0) return os_error("open", path);
  // Without O_DIRECT (tmpfs, some network file systems) everything goes through the page cache.
  int direct_fd = mode == Open::kBulk ? open_retry(path.c_str(), O_WRONLY | O_DIRECT) : -1;
  return std::make_unique<PosixFile>(fd, direct_fd, path);
}

Result<FileStat> PosixDisk::stat(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return os_error("stat", path);
  return FileStat{static_cast<std::uint64_t>(info.st_size), static_cast<std::uint64_t>(info.st_mtime),
                  S_ISDIR(info.st_mode)};
}

Result<std::vector<std::string>> PosixDisk::list(const std::string& dir) {
  DIR* handle = ::opendir(dir.c_str());
  if (handle == nullptr) return os_error("list", dir);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(handle)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
    errno = 0;
  }
  int error = errno;
  ::closedir(handle);
  if (error != 0) return os_error("list", dir, error);
  std::sort(names.begin(), names.end());
  return names;
}

Result<> PosixDisk::make_dir(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0) return {};
  if (errno != EEXIST) return os_error("make directory", path);
  TRY(FileStat info, stat(path));
  if (!info.directory) return os_error("make directory", path, ENOTDIR);
  return {};
}

Result<> PosixDisk::remove_dir(const std::string& path) {
  if (::rmdir(path.c_str()) != 0) return os_error("remove directory", path);
  return {};
}

Result<> PosixDisk::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return os_error("rename", from + " to " + to);
  return {};
}

Result<> PosixDisk::unlink(const std::string& path) {
  if (::unlink(path.c_str()) != 0) return os_error("unlink", path);
  return {};
}

Result<> PosixDisk::sync_dir(const std::string& dir) {
  Descriptor fd(open_retry(dir.c_str(), O_RDONLY | O_DIRECTORY));
  if (fd.get() < 0) return os_error("open directory", dir);
  if (::fsync(fd.get()) != 0) return os_error("fsync directory", dir);
  return {};
}

Result<Space> PosixDisk::space(const std::string& path) {
  struct statvfs info;
  if (::statvfs(path.c_str(), &info) != 0) return os_error("statvfs", path);
  return Space{std::uint64_t{info.f_blocks} * info.f_frsize, std::uint64_t{info.f_bavail} * info.f_frsize};
}

Result<std::unique_ptr<DiskLock>> PosixDisk::lock(const std::string& path) {
  Descriptor fd(open_retry(path.c_str(), O_RDWR | O_CREAT));
  if (fd.get() < 0) return os_error("open lock", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return os_error("lock", path);
    std::string pid = read_small(fd.get());
    return fail(Code::kLocked, fmt::format("{} is held by process {}: stop it, or use another directory",
                                           path, pid.empty() ? "(unknown)" : pid));
  }
  std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return os_error("write lock", path);
  return std::make_unique<PosixLock>(fd.release());
}

void PosixDisk::pause(std::chrono::microseconds duration) {
  std::this_thread::sleep_for(duration);
}

Result<std::string> PosixDisk::machine_boot_id() {
  const std::string path = "/proc/sys/kernel/random/boot_id";
  Descriptor fd(open_retry(path.c_str(), O_RDONLY));
  if (fd.get() < 0) return os_error("open", path);
  std::string id = read_small(fd.get());
  if (id.empty()) return os_error("read", path, EIO);
  return id;
}

}  // namespace cairn::disk
