// start_mount_daemon, unmount, and the ends that a mount process can come to.
#include <signal.h>
#include <sys/mount.h>

#include <fstream>

#include "fuse/mount_fixture.h"
#include "fuse/mount_record.h"
#include "fuse/mount_table.h"

namespace cairn::fuse {
namespace {

class DaemonTest : public MountFixture {
 protected:
  DaemonTest() { mounts_itself_ = true; }
  void SetUp() override {
    MountFixture::SetUp();
    options_.connect = [](const ClientOptions&) -> Result<std::unique_ptr<Client>> {
      return std::make_unique<MemoryClient>();
    };
    options_.pid_file = test_folder() + "/pid";
    options_.log_path = test_folder() + "/log";
  }
  void start() {
    const auto started = start_mount_daemon(options_);
    ASSERT_TRUE(started) << started.error().to_string();
    std::ifstream(options_.pid_file) >> pid_;
    ASSERT_GT(pid_, 1);
  }
  bool running() const { return ::kill(pid_, 0) == 0; }
  bool mounted() const { return find_mount(mountpoint_)->has_value(); }

  pid_t pid_ = 0;
};

TEST_F(DaemonTest, ServesAndUnmounts) {
  start();
  EXPECT_NE(::getsid(pid_), ::getsid(0)) << "it left the terminal";
  write_file("f", "hello");
  EXPECT_EQ(read_file("f"), "hello");
  EXPECT_EQ(start_mount_daemon(options_).error().code(), Code::kExists);
  EXPECT_EQ(MountRecord::pid(mountpoint_), pid_);
  const auto gone = unmount(mountpoint_, Unmount::kWait);
  EXPECT_TRUE(gone) << gone.error().to_string();
  EXPECT_FALSE(mounted());
  EXPECT_TRUE(eventually([&] { return !running(); }));
  EXPECT_NE(::access(options_.pid_file.c_str(), F_OK), 0) << "the pid file goes with the process";
  EXPECT_FALSE(MountRecord::pid(mountpoint_));
  start();  // and again
  EXPECT_TRUE(unmount(mountpoint_, Unmount::kWait));
}

TEST_F(DaemonTest, ErrorsReachTheCaller) {
  options_.connect = [](const ClientOptions&) -> Result<std::unique_ptr<Client>> {
    return fail(Code::kUnavailable, "nobody answers at memory:1");
  };
  const auto started = start_mount_daemon(options_);
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), Code::kUnavailable);
  EXPECT_EQ(started.error().message(), "nobody answers at memory:1");
  options_.mountpoint += "/none";
  EXPECT_EQ(start_mount_daemon(options_).error().code(), Code::kNotFound);
}

TEST_F(DaemonTest, DeathWhileStartingIsReported) {
  options_.connect = [](const ClientOptions&) -> Result<std::unique_ptr<Client>> { ::_exit(3); };
  EXPECT_EQ(start_mount_daemon(options_).error().code(), Code::kInternal);
}

TEST_F(DaemonTest, SigtermUnmounts) {
  start();
  write_file("f", "x");
  ::kill(pid_, SIGTERM);
  EXPECT_TRUE(eventually([&] { return !running(); }));
  EXPECT_FALSE(mounted());
}

// A process that stands in the mount does not keep the daemon from ending.
TEST_F(DaemonTest, SigtermWithOpenFiles) {
  start();
  write_file("f", "x");
  Fd fd(::open(at("f").c_str(), O_RDONLY | O_DIRECT));
  ASSERT_TRUE(fd.ok());
  ::kill(pid_, SIGTERM);
  EXPECT_TRUE(eventually([&] { return !running(); }));
  EXPECT_FALSE(mounted());
  char byte = 0;
  EXPECT_EQ(::read(fd.get(), &byte, 1), -1);
  EXPECT_TRUE(errno == ENOTCONN || errno == ECONNABORTED) << std::strerror(errno);
}

TEST_F(DaemonTest, DeadMountIsNamedAndCanBeUnmounted) {
  start();
  ::kill(pid_, SIGKILL);
  ASSERT_TRUE(eventually([&] { return !running(); }));
  ASSERT_TRUE(mounted());
  struct stat st {};
  EXPECT_TRUE(eventually([&] { return ::stat(at("f").c_str(), &st) != 0 && errno == ENOTCONN; }));
  const auto again = start_mount_daemon(options_);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), Code::kExists);
  EXPECT_NE(again.error().message().find("dead mount"), std::string::npos) << again.error().message();
  const auto gone = unmount(mountpoint_, Unmount::kWait);
  EXPECT_TRUE(gone) << gone.error().to_string();
  EXPECT_FALSE(mounted());
  start();
  EXPECT_TRUE(unmount(mountpoint_, Unmount::kWait));
}

TEST_F(DaemonTest, ASupervisedMountComesBackWhenItsProcessDies) {
  options_.supervised = true;
  start();
  write_file("f", "x");
  const pid_t first = pid_;
  ::kill(first, SIGKILL);
  // Another process serves it; a memory file system starts empty again. (Between the dead mount and the new
  // one the folder below is seen, which is on the device of the folder above it.)
  ASSERT_TRUE(eventually([&] {
    const auto serving = MountRecord::pid(mountpoint_);
    struct stat root {
    }, above{}, st{};
    return serving && *serving != first && ::stat(mountpoint_.c_str(), &root) == 0 &&
           ::stat((mountpoint_ + "/..").c_str(), &above) == 0 && root.st_dev != above.st_dev &&
           ::stat(at("f").c_str(), &st) != 0 && errno == ENOENT;
  }));
  std::ifstream(options_.pid_file) >> pid_;
  EXPECT_NE(pid_, first);
  write_file("f", "again");
  EXPECT_EQ(read_file("f"), "again");
  const auto gone = unmount(mountpoint_, Unmount::kWait);
  EXPECT_TRUE(gone) << gone.error().to_string();
  EXPECT_TRUE(eventually([&] { return !running(); }));
  EXPECT_FALSE(mounted());
}

TEST_F(DaemonTest, AnUnmountedDeadMountStaysAway) {
  options_.supervised = true;
  start();
  const pid_t first = pid_;
  ::kill(first, SIGSTOP);  // so that the mount is gone before its process is
  ASSERT_EQ(::umount2(mountpoint_.c_str(), MNT_DETACH), 0);
  ::kill(first, SIGKILL);
  ASSERT_TRUE(eventually([&] { return !running(); }));
  start();  // nobody is in the way
  EXPECT_NE(pid_, first);
  EXPECT_TRUE(unmount(mountpoint_, Unmount::kWait));
}

TEST_F(DaemonTest, NotEmptyDirectoryIsOnlyAWarning) {
  std::ofstream(mountpoint_ + "/hidden") << "x";
  start();
  EXPECT_NE(::access(at("hidden").c_str(), F_OK), 0);
  EXPECT_TRUE(unmount(mountpoint_, Unmount::kWait));
  EXPECT_EQ(::access(at("hidden").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace cairn::fuse
