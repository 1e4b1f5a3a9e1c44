#include "tools/cli/clone_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

namespace cairn::cli {
namespace {

std::unexpected<Error> failed(const std::string& what, const std::string& path) {
  const int error = errno;
  const Code code = error == ENOENT ? Code::kNotFound : error == EEXIST ? Code::kExists : Code::kIo;
  return fail(code, what + " " + path + ": " + std::strerror(error));
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // close(2) may tell of bytes that could not be stored.
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

// One name of a directory, and how to speak of it.
struct Place {
  int dir = AT_FDCWD;
  std::string name;
  std::string path;
  Place below(int fd, const std::string& child) const { return {fd, child, path + "/" + child}; }
};

class Cloner {
 public:
  explicit Cloner(const CloneOptions& options) : options_(options) {}

  Result<> clone(const Place& from, const Place& to, const struct stat& stat) {
    if (S_ISDIR(stat.st_mode)) return clone_directory(from, to, stat);
    if (stat.st_nlink > 1) {
      const auto known = links_.find({stat.st_dev, stat.st_ino});
      if (known != links_.end()) {
        if (::linkat(AT_FDCWD, known->second.c_str(), to.dir, to.name.c_str(), 0) != 0)
          return failed("linking", to.path);
        ++done_.others;
        return {};
      }
    }
    if (S_ISREG(stat.st_mode)) {
      TRYV(clone_file(from, to, stat));
      ++done_.files;
    } else {
      TRYV(clone_other(from, to, stat));
      ++done_.others;
    }
    if (stat.st_nlink > 1) links_[{stat.st_dev, stat.st_ino}] = to.path;
    if (options_.progress) options_.progress(done_);
    return {};
  }
  const Cloned& done() const { return done_; }

 private:
  Result<> clone_directory(const Place& from, const Place& to, const struct stat& stat) {
    const Fd source(::openat(from.dir, from.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!source.valid()) return failed("opening", from.path);
    if (::mkdirat(to.dir, to.name.c_str(), 0700) != 0) return failed("making", to.path);
    const Fd target(::openat(to.dir, to.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!target.valid()) return failed("opening", to.path);
    std::vector<std::string> names;
    {
      DIR* listing = ::fdopendir(::dup(source.get()));
      if (listing == nullptr) return failed("listing", from.path);
      errno = 0;
      while (const dirent* entry = ::readdir(listing)) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
      }
      const int error = errno;
      ::closedir(listing);
      errno = error;
      if (error != 0) return failed("listing", from.path);
    }
    for (const std::string& name : names) {
      struct stat child {};
      const Place at = from.below(source.get(), name);
      if (::fstatat(source.get(), name.c_str(), &child, AT_SYMLINK_NOFOLLOW) != 0)
        return failed("looking at", at.path);
      TRYV(clone(at, to.below(target.get(), name), child));
    }
    ++done_.directories;
    return copy_attributes(source.get(), target.get(), to.path, stat);
  }

  Result<> clone_file(const Place& from, const Place& to, const struct stat& stat) {
    const Fd source(::openat(from.dir, from.name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!source.valid()) return failed("opening", from.path);
    Fd target(::openat(to.dir, to.name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!target.valid()) return failed("making", to.path);
    Result<> done = copy_contents(source.get(), target.get(), from, to);
    if (done) done = copy_attributes(source.get(), target.get(), to.path, stat);
    if (!target.close() && done) done = failed("closing", to.path);
    if (!done) ::unlinkat(to.dir, to.name.c_str(), 0);
    return done;
  }

  Result<> copy_contents(int source, int target, const Place& from, const Place& to) {
    for (;;) {
      const ssize_t n = ::copy_file_range(source, nullptr, target, nullptr, SSIZE_MAX & ~4095L, 0);
      if (n == 0) return {};
      if (n > 0) {
        done_.bytes += static_cast<std::uint64_t>(n);
        if (options_.progress) options_.progress(done_);
        continue;
      }
      if (errno == EINTR) continue;
      if (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)
        return copy_bytes(source, target, from, to);
      return failed("copying", from.path);
    }
  }

  // From where both stand.
  Result<> copy_bytes(int source, int target, const Place& from, const Place& to) {
    std::vector<char> buffer(1 << 20);
    for (;;) {
      const ssize_t n = ::read(source, buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("reading", from.path);
      if (n == 0) return {};
      for (ssize_t at = 0; at < n;) {
        const ssize_t wrote = ::write(target, buffer.data() + at, static_cast<std::size_t>(n - at));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return failed("writing", to.path);
        at += wrote;
      }
      done_.bytes += static_cast<std::uint64_t>(n);
      if (options_.progress) options_.progress(done_);
    }
  }

  Result<> clone_other(const Place& from, const Place& to, const struct stat& stat) {
    if (S_ISLNK(stat.st_mode)) {
      std::string link(PATH_MAX, '\0');
      const ssize_t n = ::readlinkat(from.dir, from.name.c_str(), link.data(), link.size());
      if (n < 0) return failed("reading the link", from.path);
      link.resize(static_cast<std::size_t>(n));
      if (::symlinkat(link.c_str(), to.dir, to.name.c_str()) != 0) return failed("making", to.path);
    } else if (::mknodat(to.dir, to.name.c_str(), stat.st_mode, stat.st_rdev) != 0) {
      return failed("making", to.path);
    }
    if (::fchownat(to.dir, to.name.c_str(), stat.st_uid, stat.st_gid, AT_SYMLINK_NOFOLLOW) != 0 &&
        (errno != EPERM || ::geteuid() == 0))
      return failed("setting the owner of", to.path);
    if (!S_ISLNK(stat.st_mode) && ::fchmodat(to.dir, to.name.c_str(), stat.st_mode & 07777, 0) != 0)
      return failed("setting the mode of", to.path);
    const timespec times[] = {stat.st_atim, stat.st_mtim};
    if (::utimensat(to.dir, to.name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
      return failed("setting the times of", to.path);
    return {};
  }

  static Result<> copy_attributes(int source, int target, const std::string& path, const struct stat& stat) {
    // A new owner costs the set-user-id bits, and a mode changes an access control list: in this order.
    mode_t mode = stat.st_mode & 07777;
    if (::fchown(target, stat.st_uid, stat.st_gid) != 0) {
      if (errno != EPERM || ::geteuid() == 0) return failed("setting the owner of", path);
      mode &= 0777;  // it would run as somebody else
    }
    if (::fchmod(target, mode) != 0) return failed("setting the mode of", path);
    TRYV(copy_xattrs(source, target, path));
    const timespec times[] = {stat.st_atim, stat.st_mtim};
    if (::futimens(target, times) != 0) return failed("setting the times of", path);
    return {};
  }

  static Result<> copy_xattrs(int source, int target, const std::string& path) {
    std::string names(64 << 10, '\0');
    const ssize_t n = ::flistxattr(source, names.data(), names.size());
    if (n < 0 && (errno == ENOTSUP || errno == ENOSYS)) return {};
    if (n < 0) return failed("listing the extended attributes for", path);
    names.resize(static_cast<std::size_t>(n));
    std::string value(64 << 10, '\0');
    for (std::size_t at = 0; at < names.size(); at += std::strlen(names.c_str() + at) + 1) {
      const char* name = names.c_str() + at;
      const ssize_t size = ::fgetxattr(source, name, value.data(), value.size());
      if (size < 0) return failed(std::string("reading attribute ") + name + " for", path);
      if (::fsetxattr(target, name, value.data(), static_cast<std::size_t>(size), 0) == 0) continue;
      // Attributes of the system are not everybody's to set, nor known to every file system.
      const bool own = std::strncmp(name, "user.", 5) == 0 || std::strncmp(name, "system.posix_acl", 16) == 0;
      if (own || (errno != EPERM && errno != ENOTSUP))
        return failed(std::string("setting attribute ") + name + " of", path);
    }
    return {};
  }

  const CloneOptions& options_;
  Cloned done_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;  // a name in the clone of each file with several
};

// Whether the new name would lie within the tree that is cloned.
bool within(const std::string& source, const std::string& target) {
  std::error_code error;
  const auto top = std::filesystem::canonical(source, error);
  if (error) return false;
  const auto parent = std::filesystem::path(target).parent_path();
  auto at = std::filesystem::canonical(parent.empty() ? "." : parent, error);
  if (error) return false;
  for (;; at = at.parent_path()) {
    if (at == top) return true;
    if (at == at.parent_path()) return false;
  }
}

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

Result<Cloned> clone_tree(const std::string& source, const std::string& target, const CloneOptions& options) {
  const Place from{AT_FDCWD, without_slashes(source), without_slashes(source)};
  const Place to{AT_FDCWD, without_slashes(target), without_slashes(target)};
  struct stat stat {};
  if (::lstat(from.name.c_str(), &stat) != 0) return failed("looking at", from.path);
  if (S_ISDIR(stat.st_mode)) {
    if (!options.recursive)
      return fail(Code::kInvalidArgument, from.path + " is a directory: -r clones it with all that is in it");
    if (within(from.name, to.name))
      return fail(Code::kInvalidArgument, to.path + " lies within " + from.path + ": choose another place");
  }
  struct stat there {};
  if (::lstat(to.name.c_str(), &there) == 0)
    return fail(Code::kExists, to.path + " exists: choose another name, or remove it first");
  Cloner cloner(options);
  TRYV(cloner.clone(from, to, stat));
  return cloner.done();
}

}  // namespace cairn::cli
