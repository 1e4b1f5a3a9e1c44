#include "scratch.h"

#include <dirent.h>
#include <grp.h>
#include <sys/wait.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>

namespace posix {

std::string& root() {
  static std::string path;
  return path;
}

void Posix::SetUp() {
  static std::atomic<int> count{0};
  ::umask(022);
  dir_ = root() + "/t" + std::to_string(::getpid()) + "-" + std::to_string(++count);
  ASSERT_OK(::mkdir(dir_.c_str(), 0777));
  ASSERT_OK(::chmod(dir_.c_str(), 0777));
}

void Posix::TearDown() {
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
  EXPECT_FALSE(error) << "cleaning up " << dir_ << ": " << error.message();
}

Fd Posix::open_file(std::string_view name, int flags, mode_t mode) const {
  Fd fd(::open(at(name).c_str(), flags, mode));
  EXPECT_TRUE(fd.ok()) << at(name) << ": " << std::strerror(errno);
  return fd;
}

void Posix::write_file(std::string_view name, std::string_view bytes) const {
  Fd fd = open_file(name, O_WRONLY | O_CREAT | O_TRUNC);
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
    ASSERT_GT(n, 0) << std::strerror(errno);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  ASSERT_EQ(fd.reset(), 0) << std::strerror(errno);
}

std::string Posix::read_file(std::string_view name) const {
  Fd fd = open_file(name, O_RDONLY);
  std::string bytes;
  char part[65536];
  ssize_t n;
  while ((n = ::read(fd.get(), part, sizeof part)) > 0) bytes.append(part, static_cast<std::size_t>(n));
  EXPECT_EQ(n, 0) << std::strerror(errno);
  return bytes;
}

struct stat Posix::stat_of(std::string_view name) const {
  struct stat st {};
  EXPECT_OK(::lstat(at(name).c_str(), &st)) << name;
  return st;
}

bool Posix::exists(std::string_view name) const {
  struct stat st {};
  return ::lstat(at(name).c_str(), &st) == 0;
}

std::set<std::string> Posix::names_in(const std::string& directory) const {
  std::set<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(directory.c_str()), ::closedir);
  EXPECT_TRUE(open) << directory << ": " << std::strerror(errno);
  if (!open) return names;
  while (const dirent* entry = ::readdir(open.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    EXPECT_TRUE(names.insert(name).second) << name << " twice";
  }
  return names;
}

int in_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child < 0) return 2000;
  if (child == 0) ::_exit(work());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int as_nobody(const std::function<int()>& work) {
  return in_child([&] {
    if (::setgroups(0, nullptr) != 0 || ::setgid(65534) != 0 || ::setuid(65534) != 0) return 250;
    return work();
  });
}

bool is_root() {
  return ::geteuid() == 0;
}

std::string pattern(std::size_t size, unsigned seed) {
  std::string bytes(size, '\0');
  std::uint64_t x = 0x9e3779b97f4a7c15ULL * (seed + 1);
  for (std::size_t i = 0; i < size; ++i) {
    if (i % 8 == 0) x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    bytes[i] = static_cast<char>(x >> (8 * (i % 8)));
  }
  return bytes;
}

}  // namespace posix
