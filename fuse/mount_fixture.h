// Tests that really mount: a mount of a MemoryFileSystem in a directory of its own, served by this process.
// Whatever happens to the test, nothing stays mounted.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "fuse/memory_file_system.h"
#include "fuse/mount.h"

namespace cairn::fuse {

// A place for this process's mounts; a child process cleans it up when this process is gone, however it goes.
const std::string& test_folder();

// Skips or fails the test without /dev/fuse: skips only if CAIRN_TEST_SKIP_FUSE=1 says that somebody knows.
#define CAIRN_NEED_FUSE()                                                                           \
  if (::access("/dev/fuse", R_OK | W_OK) != 0) {                                                    \
    const char* skip_ = std::getenv("CAIRN_TEST_SKIP_FUSE");                                        \
    if (skip_ != nullptr && std::string_view(skip_) == "1") GTEST_SKIP() << "no /dev/fuse";         \
    FAIL() << "no usable /dev/fuse: these tests mount for real. CAIRN_TEST_SKIP_FUSE=1 skips them"; \
  }

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  int close() { return ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

// A child process; killed if the test leaves it behind.
class Child {
 public:
  explicit Child(
      const std::function<int()>& work);  // only system calls in there: other threads are not copied
  Child(const Child&) = delete;
  ~Child();
  void signal(int number) const { ::kill(pid_, number); }
  // Exit code, or 1000 + signal. -1: still running after `limit`.
  int wait(std::chrono::seconds limit = std::chrono::seconds(20));

 private:
  pid_t pid_;
};

class MountFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Mounts with options().  Called by SetUp unless mounts_itself_.
  void mount();
  // Waits for run_mount to return. Checks that no handle was left open.
  Result<> join();
  std::string at(std::string_view name) const { return mountpoint_ + "/" + std::string(name); }
  void write_file(std::string_view name, std::string_view bytes) const;
  std::string read_file(std::string_view name) const;
  // Waits until `count` requests hang.
  bool await_hanging(int count) const;

  MountOptions options_;
  std::function<void(MemoryFileSystem&)> prepare_ = [](MemoryFileSystem&) {};
  std::string mountpoint_;
  MemoryFileSystem* files_ = nullptr;  // while mounted; its end may come at any time: see files_mutex_
  bool mounts_itself_ = false;
  bool synced_ = false;  // when it ended
  int left_open_ = 0;

 private:
  std::mutex files_mutex_;  // held while files_ ends
  std::future<Result<>> ended_;
};

// Polls until `condition`; false after 20 s.
bool eventually(const std::function<bool()>& condition);

}  // namespace cairn::fuse
