// Who may do what. Needs root, which becomes somebody else in child processes. Numbers returned by children
// say which check failed.
#include <fcntl.h>

#include <cstring>

#include "scratch.h"

namespace posix {
namespace {

constexpr uid_t kNobody = 65534;

class Permissions : public Posix {
 protected:
  void SetUp() override {
    if (!is_root()) GTEST_SKIP() << "needs root";
    Posix::SetUp();
  }
  int opens(std::string_view name, int flags) const {  // 0 or errno
    const Fd fd(::open(at(name).c_str(), flags));
    return fd.ok() ? 0 : errno;
  }
};

TEST_F(Permissions, OfFiles) {
  write_file("private", "x");
  ASSERT_OK(::chmod(at("private").c_str(), 0600));
  write_file("readable", "x");
  ASSERT_OK(::chmod(at("readable").c_str(), 0604));
  EXPECT_EQ(as_nobody([&] {
              if (opens("private", O_RDONLY) != EACCES) return 1;
              if (opens("readable", O_RDONLY) != 0) return 2;
              if (opens("readable", O_WRONLY) != EACCES) return 3;
              if (::truncate(at("readable").c_str(), 0) == 0 || errno != EACCES) return 4;
              if (::chmod(at("readable").c_str(), 0777) == 0 || errno != EPERM) return 5;
              if (::chown(at("readable").c_str(), kNobody, kNobody) == 0 || errno != EPERM) return 6;
              if (::utimensat(AT_FDCWD, at("readable").c_str(), nullptr, 0) == 0 || errno != EACCES) return 7;
              return 0;
            }),
            0);
}

TEST_F(Permissions, OfDirectories) {
  ASSERT_OK(::mkdir(at("closed").c_str(), 0700));
  write_file("closed/f", "x");
  ASSERT_OK(::mkdir(at("listable").c_str(), 0704));
  ASSERT_OK(::mkdir(at("passable").c_str(), 0701));
  write_file("passable/f", "x");
  ASSERT_OK(::chmod(at("passable/f").c_str(), 0666));
  EXPECT_EQ(as_nobody([&] {
              if (opens("closed/f", O_RDONLY) != EACCES) return 1;
              if (opens("closed", O_RDONLY) != EACCES) return 2;
              if (opens("listable", O_RDONLY) != 0) return 3;
              if (opens("passable", O_RDONLY) != EACCES) return 4;
              if (opens("passable/f", O_RDWR) != 0) return 5;
              if (::unlink(at("passable/f").c_str()) == 0 || errno != EACCES) return 6;
              if (::mkdir(at("passable/d").c_str(), 0755) == 0 || errno != EACCES) return 7;
              if (::rename(at("passable/f").c_str(), at("g").c_str()) == 0 || errno != EACCES) return 8;
              return 0;
            }),
            0);
}

TEST_F(Permissions, CreatorOwns) {
  ASSERT_EQ(as_nobody([&] {
              if (!Fd(::open(at("f").c_str(), O_RDWR | O_CREAT, 0640)).ok()) return 1;
              if (::mkdir(at("d").c_str(), 0750) != 0) return 2;
              if (::symlink("f", at("l").c_str()) != 0) return 3;
              return 0;
            }),
            0);
  for (const char* name : {"f", "d", "l"}) {
    EXPECT_EQ(stat_of(name).st_uid, kNobody) << name;
    EXPECT_EQ(stat_of(name).st_gid, kNobody) << name;
  }
}

// A file may be created without any right to it; the descriptor has the rights asked for.
TEST_F(Permissions, CreatedWithModeZero) {
  EXPECT_EQ(as_nobody([&] {
              const Fd fd(::open(at("f").c_str(), O_RDWR | O_CREAT | O_EXCL, 0));
              if (!fd.ok()) return 1;
              if (::write(fd.get(), "x", 1) != 1) return 2;
              char byte = 0;
              if (::pread(fd.get(), &byte, 1, 0) != 1) return 3;
              return opens("f", O_RDONLY) == EACCES ? 0 : 4;
            }),
            0);
}

TEST_F(Permissions, StickyDirectory) {
  ASSERT_OK(::mkdir(at("tmp").c_str(), 0777));
  ASSERT_OK(::chmod(at("tmp").c_str(), 01777));
  write_file("tmp/roots", "x");
  ASSERT_OK(::chmod(at("tmp/roots").c_str(), 0666));
  EXPECT_EQ(as_nobody([&] {
              if (::unlink(at("tmp/roots").c_str()) == 0 || (errno != EPERM && errno != EACCES)) return 1;
              if (::rename(at("tmp/roots").c_str(), at("tmp/x").c_str()) == 0) return 2;
              if (!Fd(::open(at("tmp/mine").c_str(), O_RDWR | O_CREAT, 0600)).ok()) return 3;
              if (::rename(at("tmp/mine").c_str(), at("tmp/roots").c_str()) == 0) return 4;
              return ::unlink(at("tmp/mine").c_str()) == 0 ? 0 : 5;
            }),
            0);
}

TEST_F(Permissions, SetgidDirectoryHandsItsGroupDown) {
  ASSERT_OK(::mkdir(at("team").c_str(), 0777));
  ASSERT_OK(::chown(at("team").c_str(), 0, 4242));
  ASSERT_OK(::chmod(at("team").c_str(), 02777));
  write_file("team/f", "x");
  ASSERT_OK(::mkdir(at("team/d").c_str(), 0755));
  EXPECT_EQ(stat_of("team/f").st_gid, 4242u);
  EXPECT_EQ(stat_of("team/d").st_gid, 4242u);
  EXPECT_TRUE(stat_of("team/d").st_mode & S_ISGID);
  EXPECT_FALSE(stat_of("team/f").st_mode & S_ISGID);
}

TEST_F(Permissions, WritingClearsSetuid) {
  write_file("f", "x");
  ASSERT_OK(::chmod(at("f").c_str(), 06777));
  EXPECT_EQ(as_nobody([&] {
              const Fd fd(::open(at("f").c_str(), O_WRONLY));
              return fd.ok() && ::write(fd.get(), "y", 1) == 1 ? 0 : 1;
            }),
            0);
  EXPECT_EQ(stat_of("f").st_mode & 07777, 0777u);
  ASSERT_OK(::chmod(at("f").c_str(), 06777));
  EXPECT_EQ(as_nobody([&] { return ::truncate(at("f").c_str(), 0) == 0 ? 0 : 1; }), 0);
  EXPECT_EQ(stat_of("f").st_mode & 06000, 0u);
}

TEST_F(Permissions, ChownClearsSetuid) {
  write_file("f", "x");
  ASSERT_OK(::chown(at("f").c_str(), kNobody, kNobody));
  ASSERT_OK(::chmod(at("f").c_str(), 06755));
  EXPECT_EQ(as_nobody([&] { return ::chown(at("f").c_str(), kNobody, kNobody) == 0 ? 0 : 1; }), 0);
  EXPECT_EQ(stat_of("f").st_mode & 06000, 0u);
}

TEST_F(Permissions, TimesOfOthers) {
  write_file("f", "x");
  ASSERT_OK(::chmod(at("f").c_str(), 0666));
  EXPECT_EQ(as_nobody([&] {
              if (::utimensat(AT_FDCWD, at("f").c_str(), nullptr, 0) != 0)
                return 1;  // "now" needs only write permission
              const timespec times[2] = {{1, 0}, {1, 0}};
              return ::utimensat(AT_FDCWD, at("f").c_str(), times, 0) != 0 && errno == EPERM ? 0 : 2;
            }),
            0);
}

TEST_F(Permissions, Execution) {
  write_file("prog", "#!/bin/sh\nexit 7\n");
  ASSERT_OK(::chmod(at("prog").c_str(), 0644));
  auto run = [&] {
    ::execl(at("prog").c_str(), "prog", nullptr);
    return errno == EACCES ? 100 : 101;
  };
  EXPECT_EQ(in_child(run), 100);
  ASSERT_OK(::chmod(at("prog").c_str(), 0755));
  EXPECT_EQ(as_nobody(run), 7);
}

}  // namespace
}  // namespace posix
