// Fifos, sockets, device nodes, locks between local processes.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <cstring>

#include "scratch.h"

namespace posix {
namespace {

using Special = Posix;

TEST_F(Special, Fifo) {
  ASSERT_OK(::mkfifo(at("fifo").c_str(), 0640));
  EXPECT_EQ(stat_of("fifo").st_mode, S_IFIFO | 0640u);
  Fd both = open_file("fifo", O_RDWR | O_NONBLOCK);
  ASSERT_EQ(::write(both.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(both.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  ASSERT_OK(::unlink(at("fifo").c_str()));
}

TEST_F(Special, Socket) {
  // A socket's path is short: by way of the working directory.
  EXPECT_EQ(in_child([&] {
              if (::chdir(dir().c_str()) != 0) return 1;
              const Fd listener(::socket(AF_UNIX, SOCK_STREAM, 0)), caller(::socket(AF_UNIX, SOCK_STREAM, 0));
              sockaddr_un address{.sun_family = AF_UNIX, .sun_path = "sock"};
              const auto* name = reinterpret_cast<const sockaddr*>(&address);
              if (::bind(listener.get(), name, sizeof address) != 0) return 2;
              if (::listen(listener.get(), 1) != 0) return 3;
              if (::connect(caller.get(), name, sizeof address) != 0) return 4;
              return 0;
            }),
            0);
  EXPECT_TRUE(S_ISSOCK(stat_of("sock").st_mode));
}

TEST_F(Special, DeviceNodes) {
  if (!is_root()) GTEST_SKIP() << "needs root";
  ASSERT_OK(::mknod(at("null").c_str(), S_IFCHR | 0666, makedev(1, 3)));
  EXPECT_EQ(stat_of("null").st_mode & S_IFMT, static_cast<mode_t>(S_IFCHR));
  EXPECT_EQ(stat_of("null").st_rdev, makedev(1, 3));
  ASSERT_OK(::mknod(at("block").c_str(), S_IFBLK | 0600, makedev(259, 70000)));
  EXPECT_EQ(stat_of("block").st_rdev, makedev(259, 70000));
  Fd null(::open(at("null").c_str(), O_RDWR));
  if (!null.ok() && errno == EACCES) GTEST_SKIP() << "mounted nodev";
  ASSERT_TRUE(null.ok()) << std::strerror(errno);
  EXPECT_EQ(::write(null.get(), "x", 1), 1);
  char byte;
  EXPECT_EQ(::read(null.get(), &byte, 1), 0);
}

TEST_F(Special, MknodOfARegularFile) {
  ASSERT_OK(::mknod(at("f").c_str(), S_IFREG | 0600, 0));
  EXPECT_EQ(stat_of("f").st_mode, S_IFREG | 0600u);
  write_file("f", "x");
  EXPECT_EQ(read_file("f"), "x");
}

TEST_F(Special, RecordLocksBetweenProcesses) {
  Fd fd = open_file("f");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 10;
  lock.l_len = 10;
  ASSERT_OK(::fcntl(fd.get(), F_SETLK, &lock));
  EXPECT_EQ(in_child([&] {
              const Fd other(::open(at("f").c_str(), O_RDWR));
              struct flock mine = lock;
              if (::fcntl(other.get(), F_SETLK, &mine) == 0) return 1;
              if (errno != EAGAIN && errno != EACCES) return 2;
              mine.l_start = 20;
              return ::fcntl(other.get(), F_SETLK, &mine) == 0 ? 0 : 3;
            }),
            0);
}

TEST_F(Special, FlockBetweenDescriptors) {
  Fd one = open_file("f"), two = open_file("f");
  ASSERT_OK(::flock(one.get(), LOCK_EX));
  EXPECT_ERRNO(EWOULDBLOCK, ::flock(two.get(), LOCK_EX | LOCK_NB));
  one.reset();
  EXPECT_OK(::flock(two.get(), LOCK_EX | LOCK_NB));
}

}  // namespace
}  // namespace posix
