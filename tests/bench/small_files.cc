// Creates, stats or removes many small files and prints operations a second; the timed loop does nothing
// else.
//   small_files create|create_fsync|stat|unlink DIR COUNT
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: small_files create|create_fsync|stat|unlink DIR COUNT\n");
    return 2;
  }
  std::string what = argv[1], dir = argv[2];
  int count = std::atoi(argv[3]);
  if (what.starts_with("create") && ::mkdir(dir.c_str(), 0755) != 0) die(dir);
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) {
    std::string path = dir + "/f" + std::to_string(i);
    struct stat status;
    if (what == "create" || what == "create_fsync")
      create(path, what == "create_fsync");
    else if (what == "stat" && ::stat(path.c_str(), &status) != 0)
      die(path);
    else if (what == "unlink" && ::unlink(path.c_str()) != 0)
      die(path);
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%.1f\n", count / seconds);
}
