// Attributes: times, modes, owners, statfs.
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>

#include <cstring>
#include <thread>

#include "scratch.h"

namespace posix {
namespace {

bool operator<(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}
bool equal(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}
// Past the granularity of file times everywhere.
void let_time_pass() {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

class Attributes : public Posix {
 protected:
  // True if `change` moves the named time forward.
  template <class Change>
  bool moves(timespec stat::*time, std::string_view name, Change change) {
    const timespec before = stat_of(name).*time;
    let_time_pass();
    change();
    return before < stat_of(name).*time;
  }
};

TEST_F(Attributes, Mode) {
  write_file("f", "x");
  for (mode_t mode : {0000, 0400, 0644, 0755, 0777, 01777, 04755, 02755, 06777}) {
    ASSERT_OK(::chmod(at("f").c_str(), mode));
    EXPECT_EQ(stat_of("f").st_mode, S_IFREG | mode);
  }
  Fd fd = open_file("g", O_RDWR | O_CREAT, 0600);
  ASSERT_OK(::fchmod(fd.get(), 0640));
  EXPECT_EQ(stat_of("g").st_mode & 07777, 0640u);
  EXPECT_ERRNO(ENOENT, ::chmod(at("none").c_str(), 0600));
}

TEST_F(Attributes, Owner) {
  if (!is_root()) GTEST_SKIP() << "needs root";
  write_file("f", "x");
  ASSERT_OK(::chown(at("f").c_str(), 123, 456));
  EXPECT_EQ(stat_of("f").st_uid, 123u);
  EXPECT_EQ(stat_of("f").st_gid, 456u);
  ASSERT_OK(::chown(at("f").c_str(), static_cast<uid_t>(-1), 789));
  EXPECT_EQ(stat_of("f").st_uid, 123u);
  EXPECT_EQ(stat_of("f").st_gid, 789u);
  ASSERT_OK(::symlink("f", at("l").c_str()));
  ASSERT_OK(::lchown(at("l").c_str(), 5, 6));
  EXPECT_EQ(stat_of("l").st_uid, 5u);
  EXPECT_EQ(stat_of("f").st_uid, 123u);
  ASSERT_OK(::chown(at("f").c_str(), 0xfffffffe, 0xfffffffe));
  EXPECT_EQ(stat_of("f").st_uid, 0xfffffffeu);
}

TEST_F(Attributes, UtimensToTheNanosecond) {
  write_file("f", "x");
  const timespec times[2] = {{1'000'000'000, 123'456'789}, {1'600'000'000, 987'654'321}};
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), times, 0));
  EXPECT_TRUE(equal(stat_of("f").st_atim, times[0]));
  EXPECT_TRUE(equal(stat_of("f").st_mtim, times[1]));
  const timespec old[2] = {{-5, 500'000'000}, {-100'000, 1}};  // before 1970
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), old, 0));
  EXPECT_TRUE(equal(stat_of("f").st_atim, old[0]));
  EXPECT_TRUE(equal(stat_of("f").st_mtim, old[1]));
  const timespec late[2] = {{4'000'000'000, 1}, {8'000'000'000, 2}};  // after 2038
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), late, 0));
  EXPECT_TRUE(equal(stat_of("f").st_mtim, late[1]));
}

TEST_F(Attributes, UtimensNowAndOmit) {
  write_file("f", "x");
  const timespec past[2] = {{1'000'000'000, 1}, {1'000'000'000, 2}};
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), past, 0));
  const timespec mtime_only[2] = {{0, UTIME_OMIT}, {1'100'000'000, 3}};
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), mtime_only, 0));
  EXPECT_TRUE(equal(stat_of("f").st_atim, past[0]));
  EXPECT_EQ(stat_of("f").st_mtim.tv_sec, 1'100'000'000);
  const timespec now_atime[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), now_atime, 0));
  EXPECT_NEAR(stat_of("f").st_atim.tv_sec, ::time(nullptr), 5);
  EXPECT_EQ(stat_of("f").st_mtim.tv_sec, 1'100'000'000);
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), nullptr, 0));
  EXPECT_NEAR(stat_of("f").st_mtim.tv_sec, ::time(nullptr), 5);
  ASSERT_OK(::symlink("f", at("l").c_str()));
  ASSERT_OK(::utimensat(AT_FDCWD, at("l").c_str(), past, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(stat_of("l").st_mtim.tv_sec, 1'000'000'000);
  EXPECT_NEAR(stat_of("f").st_mtim.tv_sec, ::time(nullptr), 5);
}

TEST_F(Attributes, WhatMovesMtime) {
  write_file("f", "x");
  EXPECT_TRUE(moves(&stat::st_mtim, "f", [&] { write_file("f", "y"); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "f", [&] { EXPECT_OK(::truncate(at("f").c_str(), 0)); }));
  EXPECT_FALSE(moves(&stat::st_mtim, "f", [&] { EXPECT_OK(::chmod(at("f").c_str(), 0600)); }));
  EXPECT_FALSE(moves(&stat::st_mtim, "f", [&] { read_file("f"); }));
  EXPECT_FALSE(moves(&stat::st_mtim, "f", [&] { EXPECT_OK(::rename(at("f").c_str(), at("f").c_str())); }));
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { write_file("d/a", ""); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { EXPECT_OK(::link(at("d/a").c_str(), at("d/b").c_str())); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { EXPECT_OK(::rename(at("d/b").c_str(), at("d/c").c_str())); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { EXPECT_OK(::unlink(at("d/c").c_str())); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { EXPECT_OK(::symlink("x", at("d/l").c_str())); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { EXPECT_OK(::mkdir(at("d/e").c_str(), 0755)); }));
  EXPECT_TRUE(moves(&stat::st_mtim, "d", [&] { EXPECT_OK(::rmdir(at("d/e").c_str())); }));
  EXPECT_FALSE(moves(&stat::st_mtim, "d", [&] { write_file("d/a", "written to"); }));
}

TEST_F(Attributes, WhatMovesCtime) {
  write_file("f", "x");
  EXPECT_TRUE(moves(&stat::st_ctim, "f", [&] { write_file("f", "y"); }));
  EXPECT_TRUE(moves(&stat::st_ctim, "f", [&] { EXPECT_OK(::chmod(at("f").c_str(), 0600)); }));
  EXPECT_TRUE(moves(&stat::st_ctim, "f", [&] { EXPECT_OK(::link(at("f").c_str(), at("g").c_str())); }));
  EXPECT_TRUE(moves(&stat::st_ctim, "f", [&] { EXPECT_OK(::unlink(at("g").c_str())); }));
  EXPECT_TRUE(moves(&stat::st_ctim, "f", [&] {
    const timespec past[2] = {{1, 0}, {1, 0}};
    EXPECT_OK(::utimensat(AT_FDCWD, at("f").c_str(), past, 0));
  }));
  EXPECT_FALSE(moves(&stat::st_ctim, "f", [&] { read_file("f"); }));
}

// A size or time that one descriptor changed is what another sees at once.
TEST_F(Attributes, OneTruthForAllDescriptors) {
  write_file("f", "x");
  Fd writer = open_file("f", O_RDWR), watcher = open_file("f", O_RDONLY);
  for (int i = 2; i < 50; ++i) {
    ASSERT_EQ(::pwrite(writer.get(), "y", 1, i * 1000), 1);
    struct stat by_fd {};
    ASSERT_OK(::fstat(watcher.get(), &by_fd));
    EXPECT_EQ(by_fd.st_size, i * 1000 + 1);
    EXPECT_EQ(stat_of("f").st_size, i * 1000 + 1);
  }
}

TEST_F(Attributes, BlocksFollowTheData) {
  write_file("f", pattern(1 << 20));
  Fd fd = open_file("f", O_RDWR);
  ASSERT_OK(::fsync(fd.get()));
  EXPECT_GE(stat_of("f").st_blocks * 512, 1 << 20);
  EXPECT_LT(stat_of("f").st_blocks * 512, 3 << 20);
  EXPECT_GT(stat_of("f").st_blksize, 0);
}

TEST_F(Attributes, InodeNumbersDiffer) {
  std::set<ino_t> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string name = std::to_string(i);
    write_file(name, "");
    EXPECT_TRUE(seen.insert(stat_of(name).st_ino).second);
  }
}

TEST_F(Attributes, StatFs) {
  struct statvfs fs {};
  ASSERT_OK(::statvfs(dir().c_str(), &fs));
  EXPECT_GT(fs.f_blocks, 0u);
  EXPECT_GE(fs.f_blocks, fs.f_bfree);
  EXPECT_GE(fs.f_bfree, fs.f_bavail);
  EXPECT_GT(fs.f_frsize, 0u);
  EXPECT_EQ(fs.f_namemax, 255u);
  EXPECT_GT(fs.f_files, 0u);
}

TEST_F(Attributes, Access) {
  write_file("f", "x");
  EXPECT_OK(::access(at("f").c_str(), R_OK | W_OK));
  EXPECT_ERRNO(EACCES, ::access(at("f").c_str(), X_OK));
  EXPECT_ERRNO(ENOENT, ::access(at("none").c_str(), F_OK));
}

// --- times of access, by the rules of relatime ---

class AccessTimes : public Posix {
 protected:
  // Written, and with an access time far before the last change, of which the kernel has no page.
  void make_old(std::string_view name) {
    write_file(name, "some bytes");
    const timespec times[2] = {{1'000'000'000, 5}, {1'500'000'000, 7}};
    ASSERT_OK(::utimensat(AT_FDCWD, at(name).c_str(), times, 0));
    forget_pages(name);
  }
  void forget_pages(std::string_view name) {
    Fd fd = open_file(name, O_RDWR | O_NOATIME);
    ASSERT_OK(::fsync(fd.get()));
    ASSERT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }
  std::int64_t atime(std::string_view name) {
    const auto st = stat_of(name);
    return st.st_atim.tv_sec * 1'000'000'000LL + st.st_atim.tv_nsec;
  }
};

TEST_F(AccessTimes, ReadingMovesAnOldOne) {
  make_old("f");
  const auto before = stat_of("f");
  EXPECT_EQ(atime("f"), 1'000'000'000'000'000'005);
  Fd fd = open_file("f", O_RDONLY);
  char byte = 0;
  ASSERT_EQ(::read(fd.get(), &byte, 1), 1);
  const std::int64_t first = atime("f");
  EXPECT_GT(first, 1'500'000'000'000'000'000);
  ASSERT_EQ(::pread(fd.get(), &byte, 1, 5), 1);
  fd.reset();
  const auto after = stat_of("f");
  EXPECT_TRUE(after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
              after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
  EXPECT_TRUE(after.st_ctim.tv_sec == before.st_ctim.tv_sec &&
              after.st_ctim.tv_nsec == before.st_ctim.tv_nsec);
}

// Once later than the last change it stays for a day.
TEST_F(AccessTimes, ReadingLeavesALateOne) {
  make_old("f");
  const timespec times[2] = {{0, UTIME_NOW}, {1'500'000'000, 7}};
  ASSERT_OK(::utimensat(AT_FDCWD, at("f").c_str(), times, 0));
  struct stat st = stat_of("f");
  // The change just made is not older than the access: one read may move it past that, and no other.
  EXPECT_EQ(read_file("f"), "some bytes");
  forget_pages("f");
  EXPECT_EQ(read_file("f"), "some bytes");
  const std::int64_t moved = atime("f");
  EXPECT_GE(moved, st.st_atim.tv_sec * 1'000'000'000LL + st.st_atim.tv_nsec);
  forget_pages("f");
  EXPECT_EQ(read_file("f"), "some bytes");
  EXPECT_EQ(atime("f"), moved);
}

TEST_F(AccessTimes, NoneForWhoAsksForNone) {
  make_old("f");
  Fd fd = open_file("f", O_RDONLY | O_NOATIME);
  char byte = 0;
  ASSERT_EQ(::read(fd.get(), &byte, 1), 1);
  fd.reset();
  EXPECT_EQ(atime("f"), 1'000'000'000'000'000'005);
}

TEST_F(AccessTimes, WhatIsSetIsNotOvertaken) {
  make_old("f");
  Fd fd = open_file("f", O_RDONLY);
  char byte = 0;
  ASSERT_EQ(::read(fd.get(), &byte, 1), 1);
  const timespec times[2] = {{1'200'000'000, 9}, {0, UTIME_OMIT}};
  ASSERT_OK(::futimens(fd.get(), times));
  fd.reset();
  EXPECT_EQ(atime("f"), 1'200'000'000'000'000'009);
}

// The first moment of 1970 is a time as any other.
TEST_F(AccessTimes, TheEpoch) {
  Fd fd = open_file("f", O_RDWR | O_CREAT);
  ASSERT_EQ(::write(fd.get(), "x", 1), 1);
  const timespec epoch[2] = {{0, 0}, {0, 0}};
  ASSERT_OK(::futimens(fd.get(), epoch));
  ASSERT_OK(::fsync(fd.get()));
  ASSERT_OK(::fsetxattr(fd.get(), "user.a", "", 0, 0));  // after which nobody goes by what he remembers
  fd.reset();
  const auto st = stat_of("f");
  EXPECT_EQ(st.st_atim.tv_sec, 0);
  EXPECT_EQ(st.st_mtim.tv_sec, 0);
}

}  // namespace
}  // namespace posix
