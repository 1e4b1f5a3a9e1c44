// What each POSIX test starts from: a directory of its own under the one given on the command line, removed
// afterwards.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <set>
#include <string>
#include <string_view>

namespace posix {

// Set by main from argv[1].
std::string& root();

// A file descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Fd& operator=(Fd&& other) noexcept {
    reset();
    fd_ = other.fd_;
    other.fd_ = -1;
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  int reset() {  // what close(2) said
    const int result = fd_ >= 0 ? ::close(fd_) : 0;
    fd_ = -1;
    return result;
  }

 private:
  int fd_;
};

class Posix : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  std::string at(std::string_view name) const { return dir_ + "/" + std::string(name); }
  const std::string& dir() const { return dir_; }
  Fd open_file(std::string_view name, int flags = O_RDWR | O_CREAT, mode_t mode = 0644) const;
  void write_file(std::string_view name, std::string_view bytes) const;
  std::string read_file(std::string_view name) const;                  // fails the test when it cannot
  struct stat stat_of(std::string_view name) const;                    // as lstat
  std::set<std::string> names_in(const std::string& directory) const;  // without . and ..
  bool exists(std::string_view name) const;

 private:
  std::string dir_;
};

// Runs `work` in a child process and returns what it returned (0 to 255), or 1000 + the signal that ended it.
// The child calls no gtest macros: `work` returns a number of its own for each failure.
int in_child(const std::function<int()>& work);
// The same as another user (root only): 65534, group 65534, no others.
int as_nobody(const std::function<int()>& work);
bool is_root();

// 0 or errno of the call that just failed; EXPECT_ERRNO(EEXIST, mkdir(...)).
#define EXPECT_ERRNO(expected, call)                                         \
  do {                                                                       \
    errno = 0;                                                               \
    const auto result_ = (call);                                             \
    const int errno_ = errno;                                                \
    EXPECT_TRUE(result_ < 0) << #call << " succeeded";                       \
    EXPECT_EQ(errno_, (expected)) << #call << ": " << std::strerror(errno_); \
  } while (0)
#define ASSERT_OK(call) ASSERT_GE((call), 0) << #call << ": " << std::strerror(errno)
#define EXPECT_OK(call) EXPECT_GE((call), 0) << #call << ": " << std::strerror(errno)

// Bytes that differ at each place and with `seed`.
std::string pattern(std::size_t size, unsigned seed = 1);

}  // namespace posix
