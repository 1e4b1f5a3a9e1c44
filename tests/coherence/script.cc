#include "script.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <random>
#include <set>

#include "model.h"

namespace coherence {
namespace {

constexpr int kHandles = 10, kDirs = 3, kMaps = 4;
constexpr std::int64_t kSlack = 50'000'000;  // of the kernel's coarse clock
constexpr std::size_t kMapBytes = 256 << 10;
constexpr std::size_t kFar = 4 << 20;  // the default chunk ends here

std::int64_t wall_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000L + t.tv_nsec;
}

Value outcome(long result) {
  return result < 0 ? -errno : result;
}

std::string text(Value value) {
  return value < 0 ? std::string(::strerrorname_np(static_cast<int>(-value))) : std::to_string(value);
}

std::string bytes_of(unsigned seed, std::size_t size) {
  std::string bytes(size, '\0');
  std::uint64_t x = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (char& c : bytes) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    c = static_cast<char>('!' + (x >> 33) % 90);
  }
  return bytes;
}

std::string difference(std::string_view got, std::string_view wanted) {
  if (got.size() != wanted.size())
    return "length " + std::to_string(got.size()) + ", not " + std::to_string(wanted.size());
  const auto at = std::ranges::mismatch(got, wanted).in1 - got.begin();
  std::size_t end = got.size();
  while (got[end - 1] == wanted[end - 1]) --end;
  const auto n = static_cast<std::size_t>(at);
  return "bytes " + std::to_string(at) + " to " + std::to_string(end) + " differ: \"" +
         std::string(got.substr(n, 8)) + "\", not \"" + std::string(wanted.substr(n, 8)) + "\"";
}

sigjmp_buf bus_error;
void on_bus_error(int) {
  ::siglongjmp(bus_error, 1);
}

struct Wrong {
  std::string what;
};

struct FileSlot {
  int fd = -1;
  int mount = 0;
  int flags = 0;
  NodeRef node;
  bool open() const { return fd >= 0; }
  bool reads() const { return (flags & O_ACCMODE) != O_WRONLY; }
  bool writes() const { return (flags & O_ACCMODE) != O_RDONLY; }
};
struct DirSlot {
  int fd = -1;
  int mount = 0;
  NodeRef node;
};
struct MapSlot {
  char* at = nullptr;
  int fd = -1;
  bool writes = false;
  NodeRef node;
};

// The state of a run: the model, and what is open on the real mounts.
class World {
 public:
  World(const std::vector<std::string>& mounts, const std::string& folder);
  ~World();

  // Does the step in both places. Throws Wrong.
  void run(const Step& step);
  Step random_step(std::mt19937_64& rng) const;
  int mounts() const { return static_cast<int>(roots_.size()); }

 private:
  int at(const Step& step) const {
    return step.base < 0 ? roots_[static_cast<std::size_t>(step.mount)]
                         : dirs_[static_cast<std::size_t>(step.base)].fd;
  }
  NodeRef base(const Step& step) const {
    return step.base < 0 ? model_.root() : dirs_[static_cast<std::size_t>(step.base)].node;
  }
  bool possible(const Step& step) const;
  void expect(Value got, Value wanted, const std::string& what = "result") const;
  void expect_bytes(std::string_view got, std::string_view wanted, const std::string& what) const;
  void check_time(Time& known, const timespec& told, const char* which, const std::string& of) const;
  void check_stat(const struct stat& st, const NodeRef& node, const std::string& of);
  void check_file(int dir, const char* name, Node& node, const std::string& of) const;
  void check_xattrs(int fd, const Node& node, const std::string& of) const;
  void compare(int dir, const NodeRef& node, const std::string& of, std::set<std::string>* names = nullptr);
  void compare_tree(int dir, const NodeRef& node, const std::string& of);
  void run_open(const Step& step);
  void run_io(const Step& step);
  void run_map(const Step& step);
  void run_names(const Step& step);
  void run_attributes(const Step& step);
  void run_xattrs(const Step& step);
  void run_locks(const Step& step);

  std::string random_path(std::mt19937_64& rng, const NodeRef& from) const;

  Model model_;
  std::vector<int> roots_;
  std::vector<std::string> paths_;
  std::array<FileSlot, kHandles> files_;
  std::array<DirSlot, kDirs> dirs_;
  std::array<MapSlot, kMaps> maps_;
  std::map<ino_t, std::weak_ptr<Node>> inodes_;
};

World::World(const std::vector<std::string>& mounts, const std::string& folder) {
  model_.set_now(wall_ns());
  std::filesystem::create_directory(mounts[0] + "/" + folder);
  for (const std::string& mount : mounts) {
    paths_.push_back(mount + "/" + folder);
    roots_.push_back(::open(paths_.back().c_str(), O_RDONLY | O_DIRECTORY));
    if (roots_.back() < 0) throw Wrong{paths_.back() + ": " + std::strerror(errno)};
  }
  ::fchmod(roots_[0], 0755);
}

World::~World() {
  for (MapSlot& map : maps_) {
    if (map.at) ::munmap(map.at, kMapBytes);
    if (map.fd >= 0) ::close(map.fd);
  }
  for (FileSlot& file : files_)
    if (file.open()) ::close(file.fd);
  for (DirSlot& dir : dirs_)
    if (dir.fd >= 0) ::close(dir.fd);
  for (int fd : roots_) ::close(fd);
  std::error_code error;
  std::filesystem::remove_all(paths_[0], error);
}

void World::expect(Value got, Value wanted, const std::string& what) const {
  if (got != wanted) throw Wrong{what + ": " + text(got) + ", not " + text(wanted)};
}

void World::expect_bytes(std::string_view got, std::string_view wanted, const std::string& what) const {
  if (got != wanted) throw Wrong{what + ": " + difference(got, wanted)};
}

void World::check_time(Time& known, const timespec& told, const char* which, const std::string& of) const {
  const std::int64_t t = told.tv_sec * 1'000'000'000L + told.tv_nsec;
  if (known.seen) {
    if (t != *known.seen)
      throw Wrong{of + ": " + which + " was told as " + std::to_string(*known.seen) + ", now is " +
                  std::to_string(t) + " (" + std::to_string((t - *known.seen) / 1000) +
                  " us later) though nothing changed"};
    return;
  }
  const bool fresh = t >= known.not_before - kSlack && t <= wall_ns() + kSlack;
  if (!fresh && !(known.old && t == *known.old))
    throw Wrong{of + ": " + which + " is " + std::to_string((known.not_before - t) / 1000) +
                " us older than the last change"};
  known.seen = t;
}

void World::check_stat(const struct stat& st, const NodeRef& node, const std::string& of) {
  expect(st.st_mode & S_IFMT, node->type, of + " type");
  expect(st.st_mode & 07777, node->is(S_IFLNK) ? 0777 : node->mode, of + " mode");
  expect(static_cast<long>(st.st_nlink), node->nlink, of + " nlink");
  expect(st.st_uid, node->uid, of + " uid");
  expect(st.st_gid, node->gid, of + " gid");
  if (!node->is(S_IFDIR)) expect(st.st_size, static_cast<long>(node->data.size()), of + " size");
  if (!node->ino) {
    auto& known = inodes_[st.st_ino];
    if (auto other = known.lock(); other && other->nlink > 0)
      throw Wrong{of + ": inode number " + std::to_string(st.st_ino) + " belongs to another file"};
    known = node;
    node->ino = st.st_ino;
  }
  expect(static_cast<long>(st.st_ino), static_cast<long>(*node->ino), of + " inode number");
  check_time(node->mtime, st.st_mtim, "mtime", of);
  check_time(node->ctime, st.st_ctim, "ctime", of);
}

void World::check_file(int dir, const char* name, Node& node, const std::string& of) const {
  const int fd = ::openat(dir, name, O_RDONLY | O_NOFOLLOW);
  if (fd < 0) throw Wrong{of + ": open: " + text(-errno)};
  std::string got(node.data.size() + 1, '\0');
  std::size_t size = 0;
  for (;;) {
    const ssize_t n = ::read(fd, got.data() + size, got.size() - size);
    if (n < 0) {
      const Value error = -errno;
      ::close(fd);
      throw Wrong{of + ": read: " + text(error)};
    }
    size += static_cast<std::size_t>(n);
    if (n == 0 || size == got.size()) break;
  }
  ::close(fd);
  got.resize(size);
  expect_bytes(got, node.data, of + " content");
}

void World::check_xattrs(int fd, const Node& node, const std::string& of) const {
  char list[4096];
  const ssize_t size = ::flistxattr(fd, list, sizeof list);
  if (size < 0) throw Wrong{of + ": listxattr: " + text(-errno)};
  std::set<std::string> got, wanted;
  for (const char* name = list; name < list + size; name += std::strlen(name) + 1)
    if (std::string_view(name).starts_with("user.")) got.insert(name);
  for (const auto& [name, value] : node.xattrs) wanted.insert(name);
  if (got != wanted)
    throw Wrong{of + ": has " + std::to_string(got.size()) + " attributes, not " +
                std::to_string(wanted.size()) + ", or others"};
}

// The directory's listing: names, kinds and inode numbers.
void World::compare(int dir, const NodeRef& node, const std::string& of, std::set<std::string>* names) {
  const int fd = ::openat(dir, ".", O_RDONLY | O_DIRECTORY);
  if (fd < 0) throw Wrong{of + ": open for listing: " + text(-errno)};
  DIR* stream = ::fdopendir(fd);
  std::set<std::string> got;
  std::string wrong;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream);
    if (entry == nullptr) {
      if (errno != 0) wrong = "readdir: " + text(-errno);
      break;
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (!got.insert(name).second) wrong = name + " is listed twice";
    const auto known = node->entries.find(name);
    if (known == node->entries.end()) {
      wrong = name + " is listed, which does not exist";
    } else if (static_cast<mode_t>(DTTOIF(entry->d_type)) != known->second->type) {
      wrong = name + " has another type in the listing";
    } else if (known->second->ino && entry->d_ino != *known->second->ino) {
      wrong = name + " has another inode number in the listing";
    }
  }
  ::closedir(stream);
  if (!wrong.empty()) throw Wrong{of + ": " + wrong};
  for (const auto& [name, child] : node->entries)
    if (!got.contains(name)) throw Wrong{of + ": " + name + " is not listed"};
  if (names) *names = got;
}

void World::compare_tree(int dir, const NodeRef& node, const std::string& of) {
  struct stat st {};
  expect(outcome(::fstat(dir, &st)), 0, of + " fstat");
  check_stat(st, node, of);
  check_xattrs(dir, *node, of);
  compare(dir, node, of);
  for (const auto& [name, child] : node->entries) {
    const std::string path = of + "/" + name;
    expect(outcome(::fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW)), 0, path + " lstat");
    check_stat(st, child, path);
    if (child->is(S_IFREG)) {
      check_file(dir, name.c_str(), *child, path);
    } else if (child->is(S_IFDIR)) {
      const int below = ::openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (below < 0) throw Wrong{path + ": open: " + text(-errno)};
      try {
        compare_tree(below, child, path);
      } catch (...) {
        ::close(below);
        throw;
      }
      ::close(below);
    }
  }
}

// Whether what the step needs is there. Streams that were cut ask for handles that were never opened.
bool World::possible(const Step& step) const {
  if (step.mount >= mounts()) return false;
  if (step.base >= 0) {
    const DirSlot& dir = dirs_[static_cast<std::size_t>(step.base)];
    if (dir.fd < 0 || dir.mount != step.mount) return false;
  }
  const auto slot = static_cast<std::size_t>(step.slot);
  switch (step.op) {
    case Op::kOpen: {
      NodeRef node;
      const bool there = model_.find(base(step), step.path, Follow::kYes, &node) == 0;
      return !files_[slot].open() && !(there && node->is(S_IFIFO)) &&
             !(there && node->is(S_IFDIR) && (step.flags & O_DIRECT));
    }
    case Op::kWrite:
    case Op::kRead:
      return files_[slot].open() &&
             (!(files_[slot].flags & O_DIRECT) || (step.a % 4096 == 0 && step.b % 4096 == 0));
    case Op::kClose:
    case Op::kResize:
    case Op::kAllocate:
    case Op::kSync:
    case Op::kStatHandle:
      return files_[slot].open();
    case Op::kLockRecords:
    case Op::kLockFile: {
      const FileSlot& file = files_[slot];
      if (!file.open()) return false;
      if (step.op == Op::kLockRecords)
        return step.flags == 0 || (step.flags == 1 ? file.reads() : file.writes());
      // Linux gives the old lock up before it asks for another kind.
      const auto held = file.node->flocks.find(step.slot);
      return held == file.node->flocks.end() || step.flags == 0 || held->second == step.flags;
    }
    case Op::kMap:
      // Pages of files opened to append are not shared with a mapping; O_DIRECT beside a mapping is
      // undefined.
      return files_[slot].open() && files_[slot].reads() && !(files_[slot].flags & (O_APPEND | O_DIRECT)) &&
             maps_[static_cast<std::size_t>(step.a)].at == nullptr;
    case Op::kUnmap:
    case Op::kMapRead:
      return maps_[slot].at != nullptr;
    case Op::kMapWrite:
      return maps_[slot].at != nullptr && maps_[slot].writes;
    case Op::kOpenDir:
      return dirs_[slot].fd < 0;
    case Op::kCloseDir:
      return dirs_[slot].fd >= 0;
    case Op::kReadFile:
    case Op::kSetXattr:
    case Op::kGetXattr:
    case Op::kListXattrs:
    case Op::kRemoveXattr: {
      NodeRef node;
      return model_.find(base(step), step.path, Follow::kYes, &node) != 0 || node->is(S_IFREG) ||
             (node->is(S_IFDIR) && step.op != Op::kReadFile);
    }
    default:
      return true;
  }
}

void World::run(const Step& step) {
  if (!possible(step)) return;
  model_.set_now(wall_ns());
  if (sigsetjmp(bus_error, 1) != 0) throw Wrong{"SIGBUS on a page within the file"};
  run_open(step);
  run_io(step);
  run_map(step);
  run_names(step);
  run_attributes(step);
  run_xattrs(step);
  run_locks(step);
  if (step.op == Op::kCompareAll)
    compare_tree(roots_[static_cast<std::size_t>(step.mount)], model_.root(), "");
}

void World::run_open(const Step& step) {
  const auto slot = static_cast<std::size_t>(step.slot);
  switch (step.op) {
    case Op::kOpen: {
      NodeRef node;
      const Value wanted = model_.open(base(step), step.path, step.flags, static_cast<mode_t>(step.a), &node);
      const int fd = ::openat(at(step), step.path.c_str(), step.flags, static_cast<mode_t>(step.a));
      const Value got = fd < 0 ? -errno : 0;
      if (wanted == 0 && got == 0 && node->is(S_IFREG)) {
        files_[slot] = {fd, step.mount, step.flags, node};
        struct stat st {};
        expect(outcome(::fstat(fd, &st)), 0, "fstat of what was opened");
        check_stat(st, node, "what was opened");
      } else if (fd >= 0) {
        ::close(fd);
      }
      return expect(got, wanted);
    }
    case Op::kClose: {
      // A close gives locks back in the background (docs/locks.md): unlock first, so that it is known when.
      FileSlot& file = files_[slot];
      if (file.node->flocks.erase(step.slot) != 0) expect(outcome(::flock(file.fd, LOCK_UN)), 0, "unlock");
      if (file.node->records.erase(step.slot) != 0) {
        struct flock all {};
        all.l_type = F_UNLCK;
        expect(outcome(::fcntl(file.fd, F_OFD_SETLK, &all)), 0, "unlock");
      }
      expect(outcome(::close(file.fd)), 0);
      file = {};
      return;
    }
    case Op::kOpenDir: {
      NodeRef node;
      constexpr int kFlags = O_RDONLY | O_DIRECTORY;
      const Value wanted = model_.open(base(step), step.path, kFlags, 0, &node);
      const int fd = ::openat(at(step), step.path.c_str(), kFlags);
      expect(fd < 0 ? -errno : 0, wanted);
      if (fd >= 0) dirs_[slot] = {fd, step.mount, node};
      return;
    }
    case Op::kCloseDir:
      expect(outcome(::close(dirs_[slot].fd)), 0);
      dirs_[slot] = {};
      return;
    default:
      return;
  }
}

void World::run_io(const Step& step) {
  const auto slot = static_cast<std::size_t>(step.slot);
  const auto offset = static_cast<std::size_t>(step.a), length = static_cast<std::size_t>(step.b);
  switch (step.op) {
    case Op::kWrite: {
      FileSlot& file = files_[slot];
      const std::string bytes = bytes_of(step.seed, length);
      std::unique_ptr<char, void (*)(void*)> aligned(
          static_cast<char*>(::aligned_alloc(4096, (length + 4095) / 4096 * 4096 + 4096)), ::free);
      bytes.copy(aligned.get(), length);
      if (!file.writes()) return expect(outcome(::pwrite(file.fd, aligned.get(), length, step.a)), -EBADF);
      const std::size_t to = file.flags & O_APPEND ? file.node->data.size() : offset;
      const Value wanted = model_.write(*file.node, to, bytes);
      return expect(outcome(::pwrite(file.fd, aligned.get(), length, step.a)), wanted);
    }
    case Op::kRead: {
      FileSlot& file = files_[slot];
      std::unique_ptr<char, void (*)(void*)> got(
          static_cast<char*>(::aligned_alloc(4096, (length + 4095) / 4096 * 4096 + 4096)), ::free);
      const Value size = outcome(::pread(file.fd, got.get(), length, step.a));
      if (!file.reads()) return expect(size, -EBADF);
      const std::string& data = file.node->data;
      const std::string_view wanted =
          offset < data.size() ? std::string_view(data).substr(offset, length) : std::string_view();
      if (size < 0) return expect(size, static_cast<Value>(wanted.size()));
      return expect_bytes({got.get(), static_cast<std::size_t>(size)}, wanted, "read");
    }
    case Op::kTruncate: {
      NodeRef node;
      Value wanted = model_.find(base(step), step.path, Follow::kYes, &node);
      if (wanted == 0 && node->is(S_IFDIR)) wanted = -EISDIR;
      if (wanted == 0 && node->is(S_IFIFO)) wanted = -EINVAL;
      if (wanted == 0) model_.resize(*node, offset);
      const std::string path = "/proc/self/fd/" + std::to_string(at(step)) + "/" + step.path;
      return expect(outcome(::truncate(path.c_str(), step.a)), wanted);
    }
    case Op::kResize: {
      FileSlot& file = files_[slot];
      if (file.writes()) model_.resize(*file.node, offset);
      return expect(outcome(::ftruncate(file.fd, step.a)), file.writes() ? 0 : -EINVAL);
    }
    case Op::kAllocate: {
      FileSlot& file = files_[slot];
      if (file.writes()) model_.allocate(*file.node, step.flags, offset, length);
      return expect(outcome(::fallocate(file.fd, step.flags, step.a, step.b)), file.writes() ? 0 : -EBADF);
    }
    case Op::kSync:
      return expect(outcome(step.flags ? ::fdatasync(files_[slot].fd) : ::fsync(files_[slot].fd)), 0);
    case Op::kReadFile: {
      NodeRef node;
      const Value wanted = model_.find(base(step), step.path, Follow::kYes, &node);
      const int fd = ::openat(at(step), step.path.c_str(), O_RDONLY);
      expect(fd < 0 ? -errno : 0, wanted);
      const std::string path = "/proc/self/fd/" + std::to_string(fd);
      struct Closer {
        int fd;
        ~Closer() { ::close(fd); }
      } closer{fd};
      if (fd < 0) return;
      std::string got(node->data.size() + 1, '\0');
      std::size_t size = 0;
      for (;;) {
        const ssize_t n = ::read(fd, got.data() + size, got.size() - size);
        if (n < 0) return expect(-errno, static_cast<Value>(node->data.size()), "read");
        size += static_cast<std::size_t>(n);
        if (n == 0 || size == got.size()) break;
      }
      return expect_bytes(std::string_view(got).substr(0, size), node->data, "content");
    }
    default:
      return;
  }
}

void World::run_map(const Step& step) {
  const auto slot = static_cast<std::size_t>(step.slot);
  switch (step.op) {
    case Op::kMap: {
      const FileSlot& file = files_[slot];
      const int protection = PROT_READ | (file.writes() ? PROT_WRITE : 0);
      void* at = ::mmap(nullptr, kMapBytes, protection, MAP_SHARED, file.fd, 0);
      if (at == MAP_FAILED) return expect(-errno, 0);
      maps_[static_cast<std::size_t>(step.a)] = {static_cast<char*>(at), ::dup(file.fd), file.writes(),
                                                 file.node};
      return;
    }
    case Op::kUnmap:
      expect(outcome(::munmap(maps_[slot].at, kMapBytes)), 0);
      ::close(maps_[slot].fd);
      maps_[slot] = {};
      return;
    case Op::kMapRead:
    case Op::kMapWrite: {
      MapSlot& map = maps_[slot];
      // The kernel learns of a longer file when it asks for the size, not from a page fault
      // (docs/coherence.md).
      struct stat st {};
      expect(outcome(::fstat(map.fd, &st)), 0, "fstat of a mapped file");
      const std::size_t size = std::min(map.node->data.size(), kMapBytes);
      const auto from = static_cast<std::size_t>(step.a);
      if (from >= size) return;
      const std::size_t length = std::min(size - from, static_cast<std::size_t>(step.b));
      if (step.op == Op::kMapRead) {
        const std::string got(map.at + from, length);
        return expect_bytes(got, std::string_view(map.node->data).substr(from, length), "mapped bytes");
      }
      const std::string bytes = bytes_of(step.seed, length);
      bytes.copy(map.at + from, length);
      expect(outcome(::msync(map.at, kMapBytes, MS_SYNC)), 0, "msync");
      bytes.copy(map.node->data.data() + from, length);
      map.node->mtime.may_have_changed(model_.now());
      map.node->ctime.may_have_changed(model_.now());
      return;
    }
    default:
      return;
  }
}

void World::run_names(const Step& step) {
  const char* path = step.path.c_str();
  const char* other = step.other.c_str();
  const mode_t mode = static_cast<mode_t>(step.a);
  switch (step.op) {
    case Op::kMkdir: {
      const Value wanted = model_.make(base(step), step.path, S_IFDIR, mode, "");
      return expect(outcome(::mkdirat(at(step), path, mode)), wanted);
    }
    case Op::kSymlink: {
      const Value wanted = model_.make(base(step), step.path, S_IFLNK, 0777, step.other);
      return expect(outcome(::symlinkat(other, at(step), path)), wanted);
    }
    case Op::kFifo: {
      const Value wanted = model_.make(base(step), step.path, S_IFIFO, mode, "");
      return expect(outcome(::mkfifoat(at(step), path, mode)), wanted);
    }
    case Op::kUnlink: {
      const Value wanted = model_.unlink(base(step), step.path);
      return expect(outcome(::unlinkat(at(step), path, 0)), wanted);
    }
    case Op::kRmdir: {
      const Value wanted = model_.rmdir(base(step), step.path);
      return expect(outcome(::unlinkat(at(step), path, AT_REMOVEDIR)), wanted);
    }
    case Op::kLink: {
      const Value wanted = model_.link(base(step), step.path, step.other);
      return expect(outcome(::linkat(at(step), path, at(step), other, 0)), wanted);
    }
    case Op::kRename: {
      const auto flags = static_cast<unsigned>(step.flags);
      const Value wanted = model_.rename(base(step), step.path, step.other, flags);
      Value got = outcome(::renameat2(at(step), path, at(step), other, flags));
      // Linux: a directory that is held open here and was moved by another host has to get its new place in
      // the kernel, and rename holds the very lock that this takes. Once looked up, it has it.
      if (got == -ESTALE && paths_.size() > 1) {
        struct stat st {};
        (void)::fstatat(at(step), path, &st, AT_SYMLINK_NOFOLLOW);
        (void)::fstatat(at(step), other, &st, AT_SYMLINK_NOFOLLOW);
        got = outcome(::renameat2(at(step), path, at(step), other, flags));
      }
      return expect(got, wanted);
    }
    case Op::kReadlink: {
      NodeRef node;
      Value wanted = model_.find(base(step), step.path, Follow::kNo, &node);
      if (wanted == 0 && !node->is(S_IFLNK)) wanted = -EINVAL;
      char got[4096];
      const Value size = outcome(::readlinkat(at(step), path, got, sizeof got));
      if (wanted < 0 || size < 0) return expect(size, wanted);
      return expect_bytes({got, static_cast<std::size_t>(size)}, node->data, "target");
    }
    case Op::kList: {
      NodeRef node;
      const Value wanted = model_.open(base(step), step.path, O_RDONLY | O_DIRECTORY, 0, &node);
      const int fd = ::openat(at(step), path, O_RDONLY | O_DIRECTORY);
      expect(fd < 0 ? -errno : 0, wanted);
      if (fd < 0) return;
      try {
        compare(fd, node, "listing");
      } catch (...) {
        ::close(fd);
        throw;
      }
      ::close(fd);
      return;
    }
    default:
      return;
  }
}

void World::run_attributes(const Step& step) {
  const bool follow = step.flags == 0;
  const int nofollow = follow ? 0 : AT_SYMLINK_NOFOLLOW;
  const char* path = step.path.c_str();
  NodeRef node;
  switch (step.op) {
    case Op::kStat: {
      const Value wanted = model_.find(base(step), step.path, follow ? Follow::kYes : Follow::kNo, &node);
      struct stat st {};
      expect(outcome(::fstatat(at(step), path, &st, nofollow)), wanted);
      if (wanted == 0) check_stat(st, node, "stat");
      return;
    }
    case Op::kStatHandle: {
      struct stat st {};
      const FileSlot& file = files_[static_cast<std::size_t>(step.slot)];
      expect(outcome(::fstat(file.fd, &st)), 0);
      return check_stat(st, file.node, "fstat");
    }
    case Op::kChmod: {
      const Value wanted = model_.find(base(step), step.path, Follow::kYes, &node);
      const auto mode = static_cast<mode_t>(step.a);
      expect(outcome(::fchmodat(at(step), path, mode, 0)), wanted);
      if (wanted == 0) node->mode = mode, model_.touch(*node);
      return;
    }
    case Op::kChown: {
      const Value wanted = model_.find(base(step), step.path, follow ? Follow::kYes : Follow::kNo, &node);
      const auto uid = static_cast<uid_t>(step.a);
      const auto gid = static_cast<gid_t>(step.b);
      expect(outcome(::fchownat(at(step), path, uid, gid, nofollow)), wanted);
      if (wanted == 0) node->uid = uid, node->gid = gid, model_.touch(*node);
      return;
    }
    case Op::kTimes: {
      const Value wanted = model_.find(base(step), step.path, follow ? Follow::kYes : Follow::kNo, &node);
      const timespec times[2] = {{0, UTIME_OMIT}, {step.a / 1'000'000'000, step.a % 1'000'000'000}};
      expect(outcome(::utimensat(at(step), path, times, nofollow)), wanted);
      if (wanted == 0) node->mtime.set(step.a), model_.touch(*node);
      return;
    }
    default:
      return;
  }
}

void World::run_xattrs(const Step& step) {
  if (step.op != Op::kSetXattr && step.op != Op::kGetXattr && step.op != Op::kListXattrs &&
      step.op != Op::kRemoveXattr) {
    return;
  }
  NodeRef node;
  Value wanted = model_.find(base(step), step.path, Follow::kYes, &node);
  const std::string path = "/proc/self/fd/" + std::to_string(at(step)) + "/" + step.path;
  const std::string name = step.other;
  switch (step.op) {
    case Op::kSetXattr: {
      const std::string value = bytes_of(step.seed, static_cast<std::size_t>(step.a));
      if (wanted == 0) wanted = model_.set_xattr(*node, name, value, step.flags);
      return expect(outcome(::setxattr(path.c_str(), name.c_str(), value.data(), value.size(), step.flags)),
                    wanted);
    }
    case Op::kGetXattr: {
      char got[1024];
      const Value size = outcome(::getxattr(path.c_str(), name.c_str(), got, sizeof got));
      if (wanted == 0 && !node->xattrs.contains(name)) wanted = -ENODATA;
      if (wanted < 0 || size < 0) return expect(size, wanted);
      return expect_bytes({got, static_cast<std::size_t>(size)}, node->xattrs[name], "attribute");
    }
    case Op::kListXattrs: {
      char list[4096];
      const Value size = outcome(::listxattr(path.c_str(), list, sizeof list));
      if (wanted < 0 || size < 0) return expect(std::min(size, 0L), wanted);
      std::set<std::string> got, names;
      for (const char* at = list; at < list + size; at += std::strlen(at) + 1)
        if (std::string_view(at).starts_with("user.")) got.insert(at);
      for (const auto& [known, value] : node->xattrs) names.insert(known);
      if (got != names) throw Wrong{"other names of attributes"};
      return;
    }
    default:
      if (wanted == 0) wanted = model_.remove_xattr(*node, name);
      return expect(outcome(::removexattr(path.c_str(), name.c_str())), wanted);
  }
}

void World::run_locks(const Step& step) {
  if (step.op != Op::kLockRecords && step.op != Op::kLockFile) return;
  FileSlot& file = files_[static_cast<std::size_t>(step.slot)];
  if (step.op == Op::kLockFile) {
    const int kinds[] = {LOCK_UN, LOCK_SH, LOCK_EX};
    const Value wanted = model_.lock_file(*file.node, step.slot, step.flags);
    return expect(outcome(::flock(file.fd, kinds[step.flags] | LOCK_NB)), wanted);
  }
  const short kinds[] = {F_UNLCK, F_RDLCK, F_WRLCK};
  struct flock range {};
  range.l_type = kinds[step.flags];
  range.l_start = step.a;
  range.l_len = step.b;
  const Value wanted = model_.lock_records(*file.node, step.slot, static_cast<int>(step.a),
                                           static_cast<int>(step.b), step.flags);
  expect(outcome(::fcntl(file.fd, F_OFD_SETLK, &range)), wanted);
}

// --- what comes next ---

constexpr const char* kNames[] = {"a", "b", "c", "d", "e", "f"};

std::string World::random_path(std::mt19937_64& rng, const NodeRef& from) const {
  auto name = [&] { return std::string(kNames[rng() % std::size(kNames)]); };
  std::string path;
  NodeRef at = from;
  for (int depth = 0; depth < 3; ++depth) {
    // Down into a directory that exists, or wherever a name leads.
    std::vector<std::string> below;
    if (at)
      for (const auto& [known, child] : at->entries)
        if (child->is(S_IFDIR) || (child->is(S_IFLNK) && rng() % 4 == 0)) below.push_back(known);
    if (rng() % 10 < 4) break;
    if (below.empty() && rng() % 20 != 0) break;
    const std::string next = below.empty() ? name() : below[rng() % below.size()];
    path += next + "/";
    if (at) {
      const auto found = at->entries.find(next);
      at = found != at->entries.end() && found->second->is(S_IFDIR) ? found->second : nullptr;
    }
  }
  // Rather a name that exists.
  if (at && !at->entries.empty() && rng() % 2 == 0) {
    auto any = at->entries.begin();
    std::advance(any, static_cast<long>(rng() % at->entries.size()));
    return path + any->first;
  }
  return path + name();
}

Step World::random_step(std::mt19937_64& rng) const {
  auto below = [&](std::uint64_t n) { return static_cast<std::int64_t>(rng() % n); };
  static constexpr std::pair<Op, int> kWeights[] = {
      {Op::kOpen, 120},       {Op::kClose, 70},       {Op::kOpenDir, 12},    {Op::kCloseDir, 10},
      {Op::kWrite, 130},      {Op::kRead, 110},       {Op::kTruncate, 20},   {Op::kResize, 25},
      {Op::kAllocate, 20},    {Op::kSync, 12},        {Op::kMap, 20},        {Op::kUnmap, 12},
      {Op::kMapRead, 50},     {Op::kMapWrite, 40},    {Op::kMkdir, 40},      {Op::kSymlink, 15},
      {Op::kFifo, 8},         {Op::kUnlink, 50},      {Op::kRmdir, 30},      {Op::kLink, 40},
      {Op::kRename, 80},      {Op::kStat, 100},       {Op::kStatHandle, 60}, {Op::kReadlink, 10},
      {Op::kList, 30},        {Op::kReadFile, 50},    {Op::kChmod, 20},      {Op::kChown, 12},
      {Op::kTimes, 20},       {Op::kSetXattr, 20},    {Op::kGetXattr, 20},   {Op::kListXattrs, 8},
      {Op::kRemoveXattr, 10}, {Op::kLockRecords, 30}, {Op::kLockFile, 20},   {Op::kCompareAll, 2},
  };
  int total = 0;
  for (const auto& [op, weight] : kWeights) total += weight;
  for (;;) {
    Step step;
    std::int64_t pick = below(static_cast<std::uint64_t>(total));
    for (const auto& [op, weight] : kWeights) {
      if (pick < weight) {
        step.op = op;
        break;
      }
      pick -= weight;
    }
    step.mount = static_cast<int>(below(static_cast<std::uint64_t>(mounts())));
    if (below(6) == 0) {
      const auto dir = static_cast<std::size_t>(below(kDirs));
      if (dirs_[dir].fd >= 0) step.base = static_cast<int>(dir), step.mount = dirs_[dir].mount;
    }
    const bool on_dirs = step.op == Op::kOpenDir || step.op == Op::kCloseDir;
    const bool on_maps = step.op == Op::kUnmap || step.op == Op::kMapRead || step.op == Op::kMapWrite;
    step.slot = static_cast<int>(below(on_dirs ? kDirs : on_maps ? kMaps : kHandles));
    step.path = random_path(rng, base(step));
    step.seed = static_cast<unsigned>(rng());
    const bool far = below(12) == 0;
    const auto place = [&] {
      return far ? static_cast<std::int64_t>(kFar) - 8192 + below(16384) : below(40'000);
    };
    const std::size_t slot = static_cast<std::size_t>(step.slot);
    switch (step.op) {
      case Op::kOpen: {
        const int access[] = {O_RDONLY, O_RDWR, O_WRONLY, O_RDWR};
        step.flags = access[below(4)];
        if (below(2)) step.flags |= O_CREAT;
        if ((step.flags & O_CREAT) && below(4) == 0) step.flags |= O_EXCL;
        if ((step.flags & O_ACCMODE) != O_RDONLY && below(5) == 0) step.flags |= O_TRUNC;
        if ((step.flags & O_ACCMODE) != O_RDONLY && below(5) == 0) step.flags |= O_APPEND;
        if (!(step.flags & O_APPEND) && below(10) == 0) step.flags |= O_DIRECT;
        if (below(8) == 0) step.flags |= O_NOFOLLOW;
        step.a = below(01000);
        break;
      }
      case Op::kWrite:
      case Op::kRead:
        step.a = place();
        step.b = below(far ? 12'000 : 30'000);
        if (below(3) == 0) step.b = below(64);
        // Right at the end, where sizes are decided.
        if (slot < kHandles && files_[slot].open() && below(4) == 0)
          step.a = static_cast<std::int64_t>(files_[slot].node->data.size());
        if (slot < kHandles && files_[slot].open() && (files_[slot].flags & O_DIRECT))
          step.a &= ~4095L, step.b = (step.b + 4096) & ~4095L;
        break;
      case Op::kTruncate:
      case Op::kResize:
        step.a = below(5) == 0 ? 0 : place();
        break;
      case Op::kAllocate: {
        constexpr int kModes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
        step.flags = kModes[below(std::size(kModes))];
        step.a = place();
        step.b = 1 + below(30'000);
        break;
      }
      case Op::kSync:
        step.flags = static_cast<int>(below(2));
        break;
      case Op::kMap:
        step.a = below(kMaps);
        break;
      case Op::kMapRead:
      case Op::kMapWrite:
        step.a = below(40'000);
        step.b = 1 + below(20'000);
        break;
      case Op::kMkdir:
      case Op::kFifo:
        step.a = below(01000);
        break;
      case Op::kSymlink:
        step.other = kNames[below(std::size(kNames))];
        if (below(3) == 0) step.other += std::string("/") + kNames[below(std::size(kNames))];
        break;
      case Op::kLink:
        step.other = random_path(rng, base(step));
        break;
      case Op::kRename:
        step.other = random_path(rng, base(step));
        step.flags = below(4) == 0 ? RENAME_NOREPLACE : below(4) == 0 ? RENAME_EXCHANGE : 0;
        break;
      case Op::kStat:
        step.flags = static_cast<int>(below(2));
        break;
      case Op::kChmod:
        step.a = below(01000);
        break;
      case Op::kChown:
        step.a = below(3) * 500;
        step.b = below(3) * 500;
        step.flags = static_cast<int>(below(2));
        break;
      case Op::kTimes:
        step.a = below(2'000'000'000) * 1'000'000'000L + below(1'000'000'000);
        step.flags = static_cast<int>(below(2));
        break;
      case Op::kSetXattr:
      case Op::kGetXattr:
      case Op::kListXattrs:
      case Op::kRemoveXattr: {
        step.other = std::string("user.") + kNames[below(4)];
        step.a = below(100);
        const int flags[] = {0, 0, XATTR_CREATE, XATTR_REPLACE};
        step.flags = flags[below(4)];
        break;
      }
      case Op::kLockRecords:
        step.a = below(Node::kUnits);
        step.b = 1 + below(static_cast<std::uint64_t>(Node::kUnits - step.a));
        step.flags = static_cast<int>(below(3));
        break;
      case Op::kLockFile:
        step.flags = static_cast<int>(below(3));
        break;
      default:
        break;
    }
    if (possible(step)) return step;
  }
}

// Empty: all was right. Otherwise what was wrong with the last step that ran, whose number is told.
std::string replay(const std::vector<std::string>& mounts, const std::string& folder,
                   const std::vector<Step>& steps, std::size_t* failed) {
  World world(mounts, folder);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    try {
      world.run(steps[i]);
    } catch (const Wrong& wrong) {
      *failed = i;
      return wrong.what;
    }
  }
  return "";
}

// Drops steps as long as what is left still fails in the same kind of step.
std::vector<Step> shrunk(const ScriptOptions& options, std::vector<Step> steps) {
  int run = 0;
  for (std::size_t part = steps.size() / 2; part > 0;) {
    bool smaller = false;
    for (std::size_t from = 0; from < steps.size();) {
      std::vector<Step> fewer(steps.begin(), steps.begin() + static_cast<long>(from));
      fewer.insert(fewer.end(), steps.begin() + static_cast<long>(std::min(steps.size(), from + part)),
                   steps.end());
      std::size_t failed = 0;
      const std::string folder = "shrink-" + std::to_string(::getpid()) + "-" + std::to_string(++run);
      if (!fewer.empty() && !replay(options.mounts, folder, fewer, &failed).empty() &&
          fewer[failed].op == steps.back().op) {
        fewer.resize(failed + 1);
        steps = std::move(fewer);
        smaller = true;
      } else {
        from += part;
      }
    }
    if (!smaller || part > steps.size()) part = std::min(part / 2, steps.size());
  }
  return steps;
}

}  // namespace

std::string describe(const Step& step) {
  static constexpr const char* kOps[] = {
      "open",        "close",     "opendir", "closedir",   "write",    "read",      "truncate", "ftruncate",
      "fallocate",   "fsync",     "mmap",    "munmap",     "map-read", "map-write", "mkdir",    "symlink",
      "mkfifo",      "unlink",    "rmdir",   "link",       "rename",   "stat",      "fstat",    "readlink",
      "list",        "read-file", "chmod",   "chown",      "utimens",  "setxattr",  "getxattr", "listxattr",
      "removexattr", "ofd-lock",  "flock",   "compare-all"};
  std::string line = "mount " + std::to_string(step.mount) + ": " + kOps[static_cast<int>(step.op)];
  line += " slot=" + std::to_string(step.slot);
  if (step.base >= 0) line += " below-dir=" + std::to_string(step.base);
  line += " path=" + step.path;
  if (!step.other.empty()) line += " other=" + step.other;
  line += " a=" + std::to_string(step.a) + " b=" + std::to_string(step.b);
  if (step.op == Op::kOpen) {
    const char* access[] = {"RDONLY", "WRONLY", "RDWR"};
    line += std::string(" flags=") + access[step.flags & O_ACCMODE];
    for (const auto& [flag, name] :
         {std::pair(O_CREAT, "CREAT"), std::pair(O_EXCL, "EXCL"), std::pair(O_TRUNC, "TRUNC"),
          std::pair(O_APPEND, "APPEND"), std::pair(O_DIRECT, "DIRECT"), std::pair(O_NOFOLLOW, "NOFOLLOW")})
      if (step.flags & flag) line += std::string("|") + name;
  } else {
    line += " flags=" + std::to_string(step.flags);
  }
  return line;
}

int run_script(const ScriptOptions& options) {
  ::umask(0);
  ::signal(SIGBUS, on_bus_error);
  std::mt19937_64 rng(options.seed);
  const std::string folder = "script-" + std::to_string(options.seed) + "-" + std::to_string(::getpid());
  std::vector<Step> steps;
  std::string wrong;
  const std::int64_t begin = wall_ns();
  {
    World world(options.mounts, folder);
    auto more = [&] {
      if (options.seconds > 0) return static_cast<double>(wall_ns() - begin) / 1e9 < options.seconds;
      return steps.size() < options.ops;
    };
    try {
      while (more()) {
        steps.push_back(world.random_step(rng));
        world.run(steps.back());
      }
      for (int mount = 0; mount < world.mounts(); ++mount) {
        Step last;
        last.op = Op::kCompareAll;
        last.mount = mount;
        steps.push_back(last);
        world.run(last);
      }
    } catch (const Wrong& error) {
      wrong = error.what;
    }
  }
  if (wrong.empty()) {
    std::printf("script seed=%lu mounts=%zu: %zu steps right\n", static_cast<unsigned long>(options.seed),
                options.mounts.size(), steps.size());
    return 0;
  }
  auto print = [](const std::vector<Step>& list, std::size_t from) {
    for (std::size_t i = from; i < list.size(); ++i) std::printf("%7zu  %s\n", i, describe(list[i]).c_str());
  };
  std::printf("WRONG after %zu steps: %s\n", steps.size(), wrong.c_str());
  print(steps, steps.size() > 40 ? steps.size() - 40 : 0);
  std::printf("again: coherence_check script --seed %lu --ops %zu", static_cast<unsigned long>(options.seed),
              steps.size() + 1);
  for (const std::string& mount : options.mounts) std::printf(" %s", mount.c_str());
  std::printf("\n");
  std::fflush(stdout);
  if (options.shrink) {
    std::size_t failed = 0;
    const std::string again = replay(options.mounts, folder + "-again", steps, &failed);
    if (again.empty()) {
      std::printf("the same steps, run again, were right\n");
      return 1;
    }
    const std::vector<Step> few = shrunk(options, steps);
    std::printf("fewer steps that fail: %s\n", replay(options.mounts, folder + "-few", few, &failed).c_str());
    print(few, 0);
  }
  return 1;
}

}  // namespace coherence
