// The front end on a real mount. What programs expect of any file system is checked by tests/posix, which
// runs on this mount too; here stands what is particular to FUSE.
#include <dirent.h>
#include <signal.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <cstdlib>

#include "fuse/mount_fixture.h"
#include "fuse/mount_table.h"

namespace cairn::fuse {
namespace {

using MountTest = MountFixture;

// --- everything that POSIX says, answered at once and by way of coroutines ---

class PosixOnMount : public MountFixture, public ::testing::WithParamInterface<bool> {
 protected:
  PosixOnMount() {
    prepare_ = [](MemoryFileSystem& files) { files.answers_at_once = GetParam(); };
  }
};

TEST_P(PosixOnMount, Suite) {
  ASSERT_EQ(::chmod(mountpoint_.c_str(), 0777), 0);
  // What access control lists mean for modes is the metadata server's work: tests/posix/run has one.
  const std::string command =
      std::string(CAIRN_POSIX_TEST) + " " + mountpoint_ + " --gtest_brief=1 --gtest_filter=-Acls.*";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

INSTANTIATE_TEST_SUITE_P(Ways, PosixOnMount, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "AtOnce" : "ByCoroutine"; });

// --- what it looks like from outside ---

TEST_F(MountTest, ShowsTypeAndSource) {
  const auto mounted = find_mount(mountpoint_);
  ASSERT_TRUE(mounted && *mounted);
  EXPECT_EQ((*mounted)->type, "fuse.cairn");
  EXPECT_EQ((*mounted)->source, "memory:1");
  struct statvfs fs {};
  ASSERT_EQ(::statvfs(mountpoint_.c_str(), &fs), 0);
  EXPECT_EQ(fs.f_blocks * fs.f_frsize, 1ULL << 40);
  EXPECT_EQ(fs.f_bavail * fs.f_frsize, 1ULL << 39);
  struct stat st {};
  ASSERT_EQ(::stat(mountpoint_.c_str(), &st), 0);
  EXPECT_EQ(st.st_ino, 1u);
}

TEST_F(MountTest, SecondMountIsRefused) {
  const auto again = run_mount(options_);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), Code::kExists) << again.error().to_string();
}

TEST_F(MountTest, BusyMountIsNotUnmounted) {
  write_file("f", "x");
  Fd fd(::open(at("f").c_str(), O_RDONLY));
  const auto refused = unmount(mountpoint_, Unmount::kWait);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kLocked) << refused.error().to_string();
  EXPECT_EQ(read_file("f"), "x");
}

TEST_F(MountTest, LazyUnmountServesWhoIsStillThere) {
  write_file("f", "still here");
  Fd fd(::open(at("f").c_str(), O_RDONLY));
  ASSERT_TRUE(unmount(mountpoint_, Unmount::kLazy));
  EXPECT_FALSE(*find_mount(mountpoint_));
  char bytes[16] = {};
  EXPECT_EQ(::pread(fd.get(), bytes, sizeof bytes, 0), 10);
  fd.close();
}

TEST_F(MountTest, UnmountFlushes) {
  write_file("f", "x");
  ASSERT_TRUE(unmount(mountpoint_, Unmount::kWait));
  EXPECT_TRUE(synced_) << "unmount returned before the flush";
}

TEST_F(MountTest, FailedFlushIsReportedByUnmount) {
  files_->fail_next("sync", Code::kNoSpace);
  const auto result = unmount(mountpoint_, Unmount::kWait);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find("sync was told to fail"), std::string::npos)
      << result.error().to_string();
  EXPECT_FALSE(join());
}

class Unmounted : public MountFixture {
 protected:
  Unmounted() { mounts_itself_ = true; }
  Code code_of(const Result<>& result) { return result ? Code::kOk : result.error().code(); }
};

TEST_F(Unmounted, WordsForEachWayToFail) {
  EXPECT_EQ(code_of(unmount(mountpoint_, Unmount::kWait)), Code::kNotFound);
  EXPECT_EQ(code_of(unmount("/proc", Unmount::kWait)), Code::kInvalidArgument);
  options_.mountpoint = test_folder() + "/none";
  EXPECT_EQ(code_of(run_mount(options_)), Code::kNotFound);
  options_.mountpoint = test_folder() + "/none/deeper";
  EXPECT_EQ(code_of(run_mount(options_)), Code::kNotFound);
  options_.mountpoint = "/etc/passwd";
  EXPECT_EQ(code_of(run_mount(options_)), Code::kNotDirectory);
  options_.mountpoint = mountpoint_;
  options_.connect = [](const ClientOptions&) -> Result<std::unique_ptr<Client>> {
    return fail(Code::kUnavailable, "no metadata server answers");
  };
  EXPECT_EQ(code_of(run_mount(options_)), Code::kUnavailable);
  EXPECT_FALSE(*find_mount(mountpoint_));
}

// A cluster that cannot even show its root is not mounted.
TEST_F(Unmounted, RootMustBeReadable) {
  prepare_ = [](MemoryFileSystem& files) { files.fail_next("getattr", Code::kTimeout); };
  EXPECT_EQ(code_of(run_mount(options_)), Code::kTimeout);
  EXPECT_FALSE(*find_mount(mountpoint_));
}

TEST_F(Unmounted, ReadOnly) {
  options_.read_only = true;
  mount();
  EXPECT_EQ(::mkdir(at("d").c_str(), 0755), -1);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(Unmounted, ThroughASymbolicLink) {
  const std::string link = test_folder() + "/link";
  ASSERT_EQ(::symlink(mountpoint_.c_str(), link.c_str()), 0);
  options_.mountpoint = link;
  mount();
  write_file("f", "x");
  EXPECT_TRUE(*find_mount(mountpoint_));
  EXPECT_TRUE(unmount(link, Unmount::kWait));
  ::unlink(link.c_str());
}

// --- errors ---

TEST_F(MountTest, ErrorsArriveAsErrno) {
  write_file("f", "x");
  ASSERT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  auto expect = [&](const char* op, Code code, int number, const std::function<long()>& call) {
    files_->fail_next(op, code);
    errno = 0;
    EXPECT_EQ(call(), -1) << op;
    EXPECT_EQ(errno, number) << op << ": " << std::strerror(errno);
  };
  Fd fd(::open(at("f").c_str(), O_RDWR | O_DIRECT));
  char byte = 0;
  expect("read", Code::kCorrupt, EIO, [&] { return ::pread(fd.get(), &byte, 1, 0); });
  expect("read", Code::kTimeout, ETIMEDOUT, [&] { return ::pread(fd.get(), &byte, 1, 0); });
  expect("write", Code::kNoSpace, ENOSPC, [&] { return ::pwrite(fd.get(), "x", 1, 0); });
  expect("write", Code::kRange, EFBIG, [&] { return ::pwrite(fd.get(), "x", 1, 0); });
  expect("fsync", Code::kLostUnsynced, EIO, [&] { return ::fsync(fd.get()); });
  expect("fdatasync", Code::kDegraded, EHOSTDOWN, [&] { return ::fdatasync(fd.get()); });
  expect("setattr", Code::kNotPermitted, EPERM, [&] { return ::fchmod(fd.get(), 0600); });
  expect("mkdir", Code::kTooManyLinks, EMLINK, [&] { return ::mkdir(at("e").c_str(), 0755); });
  expect("create", Code::kNoSpace, ENOSPC, [&] { return ::open(at("g").c_str(), O_CREAT | O_RDWR, 0644); });
  expect("unlink", Code::kUnavailable, EHOSTUNREACH, [&] { return ::unlink(at("f").c_str()); });
  expect("rename", Code::kMaybeApplied, ETIMEDOUT,
         [&] { return ::rename(at("f").c_str(), at("h").c_str()); });
  expect("rmdir", Code::kNotEmpty, ENOTEMPTY, [&] { return ::rmdir(at("d").c_str()); });
  expect("lookup", Code::kUnavailable, EHOSTUNREACH, [&] { return ::access(at("never").c_str(), F_OK); });
  expect("open", Code::kPermission, EACCES, [&] { return ::open(at("f").c_str(), O_RDONLY); });
  expect("link", Code::kUnimplemented, EOPNOTSUPP, [&] { return ::link(at("f").c_str(), at("i").c_str()); });
  // Close reports what the write-back could not do.
  expect("flush", Code::kSessionEnded, EIO, [&] { return fd.close(); });
}

// --- data ---

TEST_F(MountTest, ReadInManyPieces) {
  std::string bytes(3 << 20, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 4096);
  write_file("f", bytes);
  files_->answers_at_once = false;
  for (std::size_t piece :
       {1UL << 20, 5000UL, 512UL}) {  // 1, 200 and 2,000 in a request: more than one gather write
    files_->piece_bytes_max = piece;
    Fd fd(::open(at("f").c_str(), O_RDONLY | O_DIRECT));
    std::string back(bytes.size(), '\0');
    std::size_t got = 0;
    for (ssize_t n;
         got < back.size() && (n = ::pread(fd.get(), back.data() + got, back.size() - got, got)) > 0;)
      got += n;
    EXPECT_TRUE(back == bytes) << piece;
  }
}

TEST_F(MountTest, RequestsAreLarge) {
  const std::string bytes(8 << 20, 'x');
  const int before = files_->calls("write");
  write_file("f", bytes);
  EXPECT_EQ(files_->calls("write") - before, 8) << "1 MiB each";
}

// Closing what was only read costs no round trip.
TEST_F(MountTest, ReadersAreNotFlushed) {
  write_file("f", "x");
  const int before = files_->calls("flush");
  for (int i = 0; i < 5; ++i) read_file("f");
  EXPECT_EQ(files_->calls("flush"), before);
}

TEST_F(MountTest, CachedFileIsNotReadAgain) {
  write_file("f", std::string(100'000, 'x'));
  read_file("f");
  const auto look_up = [&] {
    return files_->calls("read") + files_->calls("getattr") + files_->calls("lookup");
  };
  files_->answers_at_once = false;
  read_file("f");
  const int before = look_up();
  EXPECT_EQ(read_file("f").size(), 100'000u);
  EXPECT_EQ(look_up(), before) << "names, attributes and pages are cached as long as the lease says";
}

// The kernel believes that the name is free; another host made it meanwhile, closed to us.
TEST_F(MountTest, CreateFindsWhatAnotherHostMade) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(::chmod(mountpoint_.c_str(), 0777), 0);
  auto make_elsewhere = [&](const char* name) {
    EXPECT_NE(::access(at(name).c_str(), F_OK), 0);  // now the kernel knows that there is none
    auto making = files_->mknod(kRootInode, name, S_IFREG | 0600, 0, {});
    ASSERT_TRUE(files_->block_on<Entry>(std::move(making)));
  };
  make_elsewhere("one");
  Fd exclusive(::open(at("one").c_str(), O_RDWR | O_CREAT | O_EXCL, 0644));
  EXPECT_FALSE(exclusive.ok());
  EXPECT_EQ(errno, EEXIST);
  make_elsewhere("two");
  EXPECT_TRUE(Fd(::open(at("two").c_str(), O_RDWR | O_CREAT, 0644)).ok());
  make_elsewhere("three");
  Child nobody([&] {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) return 1;
    return ::open(at("three").c_str(), O_RDWR | O_CREAT, 0644) < 0 && errno == EACCES ? 0 : 2;
  });
  EXPECT_EQ(nobody.wait(), 0) << "opened without a check of permissions";
}

// What an NFS server does after a restart: an inode by number that no path led to yet.
TEST_F(MountTest, InodesOpenByHandle) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  write_file("f", "x");
  union {
    file_handle header;
    char room[sizeof(file_handle) + MAX_HANDLE_SZ];
  } handle{};
  handle.header.handle_bytes = MAX_HANDLE_SZ;
  int mount_id = 0;
  ASSERT_EQ(::name_to_handle_at(AT_FDCWD, at("f").c_str(), &handle.header, &mount_id, 0), 0)
      << std::strerror(errno);
  auto making = files_->mknod(kRootInode, "other", S_IFREG | 0644, 0, {});
  auto other = files_->block_on<Entry>(std::move(making));
  files_->write_elsewhere(other->attr.inode, "by handle");
  const std::uint32_t high = other->attr.inode.value() >> 32,
                      low = static_cast<std::uint32_t>(other->attr.inode.value());
  std::memcpy(handle.header.f_handle, &high, 4);
  std::memcpy(handle.header.f_handle + 4, &low, 4);
  Fd mount_fd(::open(mountpoint_.c_str(), O_RDONLY | O_DIRECTORY));
  Fd fd(::open_by_handle_at(mount_fd.get(), &handle.header, O_RDONLY));
  ASSERT_TRUE(fd.ok()) << std::strerror(errno);
  char bytes[16] = {};
  EXPECT_EQ(::read(fd.get(), bytes, sizeof bytes), 9);
  EXPECT_STREQ(bytes, "by handle");
}

TEST_F(MountTest, ForgetReachesTheClient) {
  for (int i = 0; i < 50; ++i) write_file(std::to_string(i), "");
  for (int i = 0; i < 50; ++i) ::unlink(at(std::to_string(i)).c_str());
  EXPECT_TRUE(eventually([&] { return files_->forgotten() >= 50; }));
}

// --- waiting, interrupted ---

void on_signal(int) {}

// In a child: catches `number` without restarting system calls.
void catch_signal(int number) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(number, &action, nullptr);
}

int direct_read(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECT);
  if (fd < 0) return 1;
  char byte = 0;
  errno = 0;
  return ::read(fd, &byte, 1) == 1 ? 0 : 100 + (errno == EINTR ? 1 : 0);
}

TEST_F(MountTest, HungReadEndsWithEintrWhenAskedToStop) {
  write_file("f", "x");
  files_->hang("read");
  Child child([&] {
    catch_signal(SIGINT);
    return direct_read(at("f"));
  });
  ASSERT_TRUE(await_hanging(1));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(), 101);
}

// Go programs get SIGURG all the time, many get SIGWINCH or SIGCHLD: none of these may break a read.
TEST_F(MountTest, OtherSignalsDoNotBreakARead) {
  write_file("f", "x");
  files_->hang("read");
  Child child([&] {
    catch_signal(SIGURG);
    return direct_read(at("f"));
  });
  ASSERT_TRUE(await_hanging(1));
  child.signal(SIGURG);
  EXPECT_EQ(child.wait(std::chrono::seconds(1)), -1) << "it still waits";
  files_->release_hung();
  EXPECT_EQ(child.wait(), 0);
}

// A caught signal leaves a mutation alone: EINTR would not say whether it happened.
TEST_F(MountTest, CaughtSignalsDoNotBreakAMutation) {
  files_->hang("mkdir");
  Child child([&] {
    catch_signal(SIGINT);
    return ::mkdir(at("d").c_str(), 0755) == 0 ? 0 : 1;
  });
  ASSERT_TRUE(await_hanging(1));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait(std::chrono::seconds(1)), -1) << "it still waits";
  files_->release_hung();
  EXPECT_EQ(child.wait(), 0);
}

TEST_F(MountTest, KillWorksOnEveryHungOperation) {
  write_file("f", "x");
  files_->valid = Duration::zero();
  const std::map<std::string, std::function<int()>> work = {
      {"read", [&] { return direct_read(at("f")); }},
      {"getattr",
       [&] {
         struct stat st {};
         return ::stat(at("f").c_str(), &st);
       }},
      {"open", [&] { return ::open(at("f").c_str(), O_RDONLY); }},
      {"create", [&] { return ::open(at("new").c_str(), O_RDWR | O_CREAT, 0644); }},
      {"mkdir", [&] { return ::mkdir(at("d").c_str(), 0755); }},
      {"readdir",
       [&] {
         return ::opendir(mountpoint_.c_str()) != nullptr && ::readdir(::opendir(mountpoint_.c_str())) ? 0
                                                                                                       : 1;
       }},
      {"rename", [&] { return ::rename(at("f").c_str(), at("g").c_str()); }},
  };
  for (const auto& [op, call] : work) {
    for (int number : {SIGKILL, SIGTERM}) {  // SIGTERM is not caught: death too
      write_file("f", "x");
      files_->hang(op);
      const int before = files_->hanging();
      Child child(call);
      ASSERT_TRUE(await_hanging(before + 1)) << op;
      child.signal(number);
      EXPECT_EQ(child.wait(), 1000 + number) << op;
      files_->release_hung();
      ASSERT_TRUE(eventually([&] { return files_->hanging() == 0; })) << op;
      for (const char* made : {"new", "g"}) ::unlink(at(made).c_str());
      ::rmdir(at("d").c_str());
    }
  }
  // Opens that succeeded after their caller was gone were closed again.
  EXPECT_TRUE(eventually([&] { return files_->open_handles() == 0; }));
}

// Whatever the client does, no process waits for ever.
TEST_F(Unmounted, DeadlineEndsWhatTheClientForgot) {
  options_.client.timeout = std::chrono::milliseconds(300);
  options_.timeout_margin = std::chrono::milliseconds(300);
  mount();
  write_file("f", "x");
  files_->hang("read");
  Fd fd(::open(at("f").c_str(), O_RDONLY | O_DIRECT));
  char byte = 0;
  EXPECT_EQ(::read(fd.get(), &byte, 1), -1);
  EXPECT_EQ(errno, ETIMEDOUT);
  files_->release_hung();
  EXPECT_TRUE(eventually([&] { return files_->hanging() == 0; }));
  EXPECT_EQ(::read(fd.get(), &byte, 1), 1);
}

// --- what another host changes ---

TEST_F(MountTest, InvalidationShowsNewDataAndAttributes) {
  write_file("f", "old");
  EXPECT_EQ(read_file("f"), "old");
  const InodeId inode = files_->inode_of("f");
  files_->write_elsewhere(inode, "new and longer");
  EXPECT_EQ(read_file("f"), "old") << "cached: the lease says so";
  files_->sink()->invalidate_inode(inode, true, [] {});
  EXPECT_EQ(read_file("f"), "new and longer");
  struct stat st {};
  ASSERT_EQ(::stat(at("f").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 14);
}

TEST_F(MountTest, InvalidationShowsNewNames) {
  write_file("a", "x");
  EXPECT_EQ(::access(at("b").c_str(), F_OK), -1);
  files_->rename_elsewhere("a", "b");
  EXPECT_EQ(::access(at("a").c_str(), F_OK), 0) << "cached: the lease says so";
  files_->sink()->invalidate_entry(kRootInode, "a");
  files_->sink()->invalidate_entry(kRootInode, "b");
  files_->sink()->invalidate_inode(kRootInode, true, [] {});
  EXPECT_EQ(::access(at("a").c_str(), F_OK), -1);
  EXPECT_EQ(::access(at("b").c_str(), F_OK), 0);
  Fd dir(::open(mountpoint_.c_str(), O_RDONLY | O_DIRECTORY));
  DIR* listing = ::fdopendir(::dup(dir.get()));
  std::string names;
  while (const dirent* entry = ::readdir(listing)) names += std::string(entry->d_name) + " ";
  ::closedir(listing);
  EXPECT_EQ(names.find("a "), std::string::npos) << names;
  EXPECT_NE(names.find("b "), std::string::npos) << names;
}

// A local process creates in the directory, and holds its lock, while a recall asks for a name there: the
// recall must be answered all the same, and the old name must not be served.
TEST_F(MountTest, RecallDuringALocalCreateDoesNotDeadlock) {
  write_file("old", "x");
  files_->hang("create");
  Child child([&] { return ::open(at("new").c_str(), O_RDWR | O_CREAT, 0644) >= 0 ? 0 : 1; });
  ASSERT_TRUE(await_hanging(1));
  files_->rename_elsewhere("old", "moved");
  const auto start = std::chrono::steady_clock::now();
  files_->sink()->invalidate_entry(kRootInode, "old");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  utsname kernel{};
  ::uname(&kernel);
  int major = 0, minor = 0;
  std::sscanf(kernel.release, "%d.%d", &major, &minor);
  const bool has_epochs = major > 6 || (major == 6 && minor >= 16);
  Child looker([&] { return ::access(at("old").c_str(), F_OK) == 0 ? 1 : 0; });
  if (has_epochs) {
    // Looking up a name takes the directory's lock shared, so it may wait for the create; but it must not say
    // yes.
    EXPECT_NE(looker.wait(std::chrono::seconds(1)), 1);
  }
  files_->release_hung();
  EXPECT_EQ(child.wait(), 0);
  if (has_epochs) {
    EXPECT_NE(looker.wait(), 1);
  }
  EXPECT_TRUE(eventually([&] { return ::access(at("old").c_str(), F_OK) != 0; }));
}

}  // namespace
}  // namespace cairn::fuse
