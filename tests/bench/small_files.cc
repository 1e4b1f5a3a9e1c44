// Does one thing to many small files and prints operations a second; the timed loop does nothing else.
//   small_files create|create_fsync|stat|read|rename|unlink|mkdir|rmdir|readdir_stat DIR COUNT
// create makes DIR; the others find there what create or mkdir made. readdir_stat lists DIR and stats each
// entry.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

[[noreturn]] void die(const std::string& path) {
  std::perror(path.c_str());
  std::exit(1);
}

void create(const std::string& path, bool sync) {
  static char block[4096];
  std::memset(block, 'x', sizeof block);
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0644);
  if (fd < 0 || ::write(fd, block, sizeof block) != sizeof block) die(path);
  if (sync && ::fsync(fd) != 0) die(path);
  if (::close(fd) != 0) die(path);
}

void read_whole(const std::string& path) {
  static char block[4096];
  int fd = ::open(path.c_str(), O_RDONLY);
  if (fd < 0 || ::read(fd, block, sizeof block) != sizeof block) die(path);
  if (::close(fd) != 0) die(path);
}

int readdir_stat(const std::string& dir) {
  DIR* entries = ::opendir(dir.c_str());
  if (entries == nullptr) die(dir);
  int count = 0;
  struct stat status;
  while (const dirent* entry = ::readdir(entries)) {
    if (::fstatat(::dirfd(entries), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) die(dir);
    ++count;
  }
  ::closedir(entries);
  return count;
}

void once(const std::string& what, const std::string& path) {
  struct stat status;
  int failed = 0;
  if (what == "create" || what == "create_fsync") create(path, what == "create_fsync");
  if (what == "read") read_whole(path);
  if (what == "stat") failed = ::stat(path.c_str(), &status);
  if (what == "rename") failed = ::rename(path.c_str(), (path + ".renamed").c_str());
  if (what == "unlink") failed = ::unlink(path.c_str());
  if (what == "mkdir") failed = ::mkdir(path.c_str(), 0755);
  if (what == "rmdir") failed = ::rmdir(path.c_str());
  if (failed != 0) die(path);
}

}  // namespace

int main(int argc, char** argv) {
  const std::set<std::string> known = {"create", "create_fsync", "stat",  "read",        "rename",
                                       "unlink", "mkdir",        "rmdir", "readdir_stat"};
  if (argc != 4 || !known.contains(argv[1])) {
    std::fprintf(
        stderr,
        "usage: small_files create|create_fsync|stat|read|rename|unlink|mkdir|rmdir|readdir_stat DIR "
        "COUNT\n");
    return 2;
  }
  const std::string what = argv[1], dir = argv[2];
  int count = std::atoi(argv[3]);
  if ((what.starts_with("create") || what == "mkdir") && ::mkdir(dir.c_str(), 0755) != 0) die(dir);
  const auto start = std::chrono::steady_clock::now();
  if (what == "readdir_stat") {
    count = readdir_stat(dir);
  } else {
    for (int i = 0; i < count; ++i) once(what, dir + "/f" + std::to_string(i));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%.1f\n", count / seconds);
}
