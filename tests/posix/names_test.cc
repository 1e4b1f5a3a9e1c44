// Names: creating, linking, renaming, removing.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>

#include <cstring>
#include <thread>
#include <vector>

#include "scratch.h"

namespace posix {
namespace {

class Names : public Posix {
 protected:
  int rename_flags(std::string_view from, std::string_view to, unsigned flags) {
    return ::renameat2(AT_FDCWD, at(from).c_str(), AT_FDCWD, at(to).c_str(), flags);
  }
};

// What is not a name can't be merely absent, also in a directory whose names are all known.
TEST_F(Names, TooLongWhereEverythingIsKnown) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  const std::string more = at("d/" + std::string(256, 'n'));
  struct stat st {};
  EXPECT_ERRNO(ENAMETOOLONG, ::stat(more.c_str(), &st));
  EXPECT_ERRNO(ENAMETOOLONG, ::chmod(more.c_str(), 0644));
  EXPECT_ERRNO(ENAMETOOLONG, ::open((more + "/x").c_str(), O_RDONLY));
  ASSERT_OK(::stat(at("d").c_str(), &st));
}

TEST_F(Names, RenameLeavingAWhiteout) {
  if (!is_root()) GTEST_SKIP() << "needs root";
  ASSERT_OK(::mkdir(at("sub").c_str(), 0755));
  write_file("a", "bytes");
  write_file("old", "replaced");
  const auto before = stat_of("a");
  const auto expect_whiteout = [&](std::string_view name) {
    const auto st = stat_of(name);
    EXPECT_TRUE(S_ISCHR(st.st_mode)) << name;
    EXPECT_EQ(st.st_rdev, 0u) << name;
    EXPECT_EQ(st.st_nlink, 1u) << name;
    EXPECT_EQ(st.st_uid, ::geteuid()) << name;
    EXPECT_NE(st.st_ino, before.st_ino) << name;
  };
  ASSERT_OK(rename_flags("a", "sub/b", RENAME_WHITEOUT));
  expect_whiteout("a");
  EXPECT_EQ(stat_of("sub/b").st_ino, before.st_ino);
  EXPECT_EQ(read_file("sub/b"), "bytes");
  ASSERT_OK(rename_flags("sub/b", "old", RENAME_WHITEOUT));  // replaces
  expect_whiteout("sub/b");
  EXPECT_EQ(read_file("old"), "bytes");
  EXPECT_EQ(names_in(dir()), (std::set<std::string>{"a", "old", "sub"}));
  EXPECT_ERRNO(EEXIST, rename_flags("old", "a", RENAME_WHITEOUT | RENAME_NOREPLACE));
  EXPECT_ERRNO(EINVAL, rename_flags("old", "a", RENAME_WHITEOUT | RENAME_EXCHANGE));
  ASSERT_OK(::unlink(at("a").c_str()));
  const auto parent = stat_of("");
  ASSERT_OK(rename_flags("sub", "moved", RENAME_WHITEOUT));
  expect_whiteout("sub");
  EXPECT_EQ(stat_of("").st_nlink, parent.st_nlink);
  EXPECT_EQ(names_in(at("moved")), (std::set<std::string>{"b"}));
}

TEST_F(Names, CreateAndLookUp) {
  EXPECT_ERRNO(ENOENT, ::open(at("none").c_str(), O_RDONLY));
  write_file("a", "x");
  const auto st = stat_of("a");
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(st.st_mode & 07777, 0644u);
  EXPECT_EQ(st.st_nlink, 1u);
  EXPECT_EQ(st.st_size, 1);
  EXPECT_EQ(st.st_uid, ::geteuid());
}

TEST_F(Names, ExclusiveCreation) {
  open_file("a", O_RDWR | O_CREAT | O_EXCL);
  EXPECT_ERRNO(EEXIST, ::open(at("a").c_str(), O_RDWR | O_CREAT | O_EXCL, 0644));
  EXPECT_TRUE(open_file("a", O_RDWR | O_CREAT).ok());
  ASSERT_OK(::symlink("nowhere", at("dangling").c_str()));
  EXPECT_ERRNO(EEXIST, ::open(at("dangling").c_str(), O_RDWR | O_CREAT | O_EXCL, 0644));
}

// Of many threads that create one name exclusively, one wins.
TEST_F(Names, ExclusiveCreationHasOneWinner) {
  for (int round = 0; round < 20; ++round) {
    const std::string path = at("race" + std::to_string(round));
    std::atomic<int> winners{0}, others{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
        if (fd.ok())
          ++winners;
        else if (errno == EEXIST)
          ++others;
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(others, 3);
  }
}

TEST_F(Names, UmaskApplies) {
  ::umask(077);
  open_file("f", O_RDWR | O_CREAT, 0666);
  ASSERT_OK(::mkdir(at("d").c_str(), 0777));
  ::umask(022);
  EXPECT_EQ(stat_of("f").st_mode & 07777, 0600u);
  EXPECT_EQ(stat_of("d").st_mode & 07777, 0700u);
}

TEST_F(Names, NameLengths) {
  const std::string most(255, 'n'), more(256, 'n');
  write_file(most, "x");
  EXPECT_EQ(read_file(most), "x");
  EXPECT_TRUE(names_in(dir()).contains(most));
  EXPECT_ERRNO(ENAMETOOLONG, ::open(at(more).c_str(), O_RDWR | O_CREAT, 0644));
  EXPECT_ERRNO(ENAMETOOLONG, ::mkdir(at(more).c_str(), 0755));
  EXPECT_ERRNO(ENAMETOOLONG, ::rename(at(most).c_str(), at(more).c_str()));
  EXPECT_ERRNO(ENAMETOOLONG, ::link(at(most).c_str(), at(more).c_str()));
}

// Any byte but '/' and NUL.
TEST_F(Names, OddBytes) {
  for (const std::string name : {" ", "\n", "\\", "a\tb", "\xff\xfe", "-rf", "...", "ä", "a,b=c\"'"}) {
    write_file(name, name);
    EXPECT_EQ(read_file(name), name);
  }
  EXPECT_EQ(names_in(dir()).size(), 9u);
}

TEST_F(Names, ManyPathElements) {
  std::string path = "d";
  for (int i = 0; i < 60; ++i) {
    ASSERT_OK(::mkdir(at(path).c_str(), 0755));
    path += "/d";
  }
  write_file(path + "-leaf", "deep");
  EXPECT_EQ(read_file(path + "-leaf"), "deep");
}

TEST_F(Names, Unlink) {
  write_file("a", "x");
  ASSERT_OK(::unlink(at("a").c_str()));
  EXPECT_ERRNO(ENOENT, ::unlink(at("a").c_str()));
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  errno = 0;
  EXPECT_EQ(::unlink(at("d").c_str()), -1);
  EXPECT_TRUE(errno == EISDIR || errno == EPERM) << errno;
  EXPECT_ERRNO(ENOENT, ::open(at("a").c_str(), O_RDONLY));
}

TEST_F(Names, UnlinkedFileLivesWhileOpen) {
  Fd fd = open_file("a");
  ASSERT_EQ(::write(fd.get(), "before", 6), 6);
  ASSERT_OK(::unlink(at("a").c_str()));
  EXPECT_FALSE(exists("a"));
  ASSERT_EQ(::write(fd.get(), " after", 6), 6);
  struct stat st {};
  ASSERT_OK(::fstat(fd.get(), &st));
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_EQ(st.st_size, 12);
  char bytes[16] = {};
  EXPECT_EQ(::pread(fd.get(), bytes, sizeof bytes, 0), 12);
  EXPECT_STREQ(bytes, "before after");
  ASSERT_OK(::ftruncate(fd.get(), 3));
  ASSERT_OK(::fchmod(fd.get(), 0600));
  ASSERT_OK(::fsync(fd.get()));
  EXPECT_EQ(::pread(fd.get(), bytes, sizeof bytes, 0), 3);
  // A new file of that name is another file.
  write_file("a", "new");
  ASSERT_OK(::fstat(fd.get(), &st));
  EXPECT_NE(st.st_ino, stat_of("a").st_ino);
  EXPECT_EQ(fd.reset(), 0);
  EXPECT_EQ(read_file("a"), "new");
}

TEST_F(Names, HardLinks) {
  write_file("a", "x");
  ASSERT_OK(::link(at("a").c_str(), at("b").c_str()));
  EXPECT_EQ(stat_of("a").st_nlink, 2u);
  EXPECT_EQ(stat_of("a").st_ino, stat_of("b").st_ino);
  EXPECT_ERRNO(EEXIST, ::link(at("a").c_str(), at("b").c_str()));
  EXPECT_ERRNO(ENOENT, ::link(at("none").c_str(), at("c").c_str()));
  write_file("b", "changed");
  EXPECT_EQ(read_file("a"), "changed");
  ASSERT_OK(::unlink(at("a").c_str()));
  EXPECT_EQ(stat_of("b").st_nlink, 1u);
  EXPECT_EQ(read_file("b"), "changed");
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  EXPECT_ERRNO(EPERM, ::link(at("d").c_str(), at("e").c_str()));
}

TEST_F(Names, SymbolicLinks) {
  ASSERT_OK(::symlink("target", at("l").c_str()));
  EXPECT_TRUE(S_ISLNK(stat_of("l").st_mode));
  EXPECT_EQ(stat_of("l").st_size, 6);
  char text[64] = {};
  EXPECT_EQ(::readlink(at("l").c_str(), text, sizeof text), 6);
  EXPECT_STREQ(text, "target");
  EXPECT_EQ(::readlink(at("l").c_str(), text, 3), 3);
  EXPECT_ERRNO(ENOENT, ::open(at("l").c_str(), O_RDONLY));
  EXPECT_ERRNO(ELOOP, ::open(at("l").c_str(), O_RDONLY | O_NOFOLLOW));
  write_file("target", "x");
  EXPECT_EQ(read_file("l"), "x");
  EXPECT_ERRNO(EINVAL, ::readlink(at("target").c_str(), text, sizeof text));
  EXPECT_ERRNO(EEXIST, ::symlink("other", at("l").c_str()));
  ASSERT_OK(::symlink("loop", at("loop").c_str()));
  EXPECT_ERRNO(ELOOP, ::open(at("loop").c_str(), O_RDONLY));
  // The longest target that Linux takes.
  const std::string longest(4095, 't');
  ASSERT_OK(::symlink(longest.c_str(), at("longest").c_str()));
  std::string read(5000, '\0');
  EXPECT_EQ(::readlink(at("longest").c_str(), read.data(), read.size()), 4095);
  ASSERT_OK(::unlink(at("l").c_str()));
  EXPECT_EQ(read_file("target"), "x");
}

TEST_F(Names, Directories) {
  const auto before = stat_of("").st_nlink;
  ASSERT_OK(::mkdir(at("d").c_str(), 0750));
  EXPECT_EQ(stat_of("d").st_mode, S_IFDIR | 0750u);
  EXPECT_EQ(stat_of("d").st_nlink, 2u);
  EXPECT_EQ(stat_of("").st_nlink, before + 1);
  EXPECT_ERRNO(EEXIST, ::mkdir(at("d").c_str(), 0755));
  ASSERT_OK(::mkdir(at("d/e").c_str(), 0755));
  EXPECT_EQ(stat_of("d").st_nlink, 3u);
  EXPECT_EQ(stat_of("d/e/..").st_ino, stat_of("d").st_ino);
  EXPECT_EQ(stat_of("d/.").st_ino, stat_of("d").st_ino);
  EXPECT_ERRNO(ENOTEMPTY, ::rmdir(at("d").c_str()));
  ASSERT_OK(::rmdir(at("d/e").c_str()));
  ASSERT_OK(::rmdir(at("d").c_str()));
  EXPECT_ERRNO(ENOENT, ::rmdir(at("d").c_str()));
  EXPECT_EQ(stat_of("").st_nlink, before);
  write_file("f", "x");
  EXPECT_ERRNO(ENOTDIR, ::rmdir(at("f").c_str()));
  EXPECT_ERRNO(ENOTDIR, ::open(at("f/x").c_str(), O_RDONLY));
  EXPECT_ERRNO(ENOTDIR, ::open(at("f").c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_ERRNO(EISDIR, ::open(dir().c_str(), O_RDWR));
  EXPECT_ERRNO(EINVAL, ::rmdir(at(".").c_str()));
}

TEST_F(Names, RemovedDirectoryThatIsOpen) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  Fd fd(::open(at("d").c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_TRUE(fd.ok());
  ASSERT_OK(::rmdir(at("d").c_str()));
  EXPECT_ERRNO(ENOENT, ::openat(fd.get(), "x", O_RDWR | O_CREAT, 0644));
  struct stat st {};
  EXPECT_OK(::fstat(fd.get(), &st));
}

TEST_F(Names, Rename) {
  write_file("a", "A");
  const auto inode = stat_of("a").st_ino;
  ASSERT_OK(::rename(at("a").c_str(), at("b").c_str()));
  EXPECT_FALSE(exists("a"));
  EXPECT_EQ(stat_of("b").st_ino, inode);
  write_file("c", "C");
  Fd replaced = open_file("c", O_RDONLY);
  ASSERT_OK(::rename(at("b").c_str(), at("c").c_str()));
  EXPECT_EQ(read_file("c"), "A");
  char byte = 0;
  EXPECT_EQ(::pread(replaced.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'C') << "the replaced file lives while it is open";
  EXPECT_ERRNO(ENOENT, ::rename(at("none").c_str(), at("x").c_str()));
  // Two names of one file: nothing happens.
  ASSERT_OK(::link(at("c").c_str(), at("d").c_str()));
  ASSERT_OK(::rename(at("c").c_str(), at("d").c_str()));
  EXPECT_TRUE(exists("c"));
  EXPECT_TRUE(exists("d"));
}

TEST_F(Names, RenameDirectories) {
  ASSERT_OK(::mkdir(at("p").c_str(), 0755));
  ASSERT_OK(::mkdir(at("q").c_str(), 0755));
  ASSERT_OK(::mkdir(at("p/d").c_str(), 0755));
  write_file("p/d/f", "x");
  const auto p_links = stat_of("p").st_nlink, q_links = stat_of("q").st_nlink;
  ASSERT_OK(::rename(at("p/d").c_str(), at("q/d").c_str()));
  EXPECT_EQ(read_file("q/d/f"), "x");
  EXPECT_EQ(stat_of("q/d/..").st_ino, stat_of("q").st_ino);
  EXPECT_EQ(stat_of("p").st_nlink, p_links - 1);
  EXPECT_EQ(stat_of("q").st_nlink, q_links + 1);
  // Onto an empty directory; not onto one that is not, nor onto a file, nor into itself.
  ASSERT_OK(::mkdir(at("empty").c_str(), 0755));
  ASSERT_OK(::rename(at("q/d").c_str(), at("empty").c_str()));
  EXPECT_EQ(read_file("empty/f"), "x");
  ASSERT_OK(::mkdir(at("other").c_str(), 0755));
  EXPECT_ERRNO(ENOTEMPTY, ::rename(at("other").c_str(), at("empty").c_str()));
  write_file("file", "x");
  EXPECT_ERRNO(ENOTDIR, ::rename(at("other").c_str(), at("file").c_str()));
  EXPECT_ERRNO(EISDIR, ::rename(at("file").c_str(), at("other").c_str()));
  ASSERT_OK(::mkdir(at("other/sub").c_str(), 0755));
  EXPECT_ERRNO(EINVAL, ::rename(at("other").c_str(), at("other/sub/x").c_str()));
}

TEST_F(Names, RenameNoReplace) {
  write_file("a", "A");
  write_file("b", "B");
  EXPECT_ERRNO(EEXIST, rename_flags("a", "b", RENAME_NOREPLACE));
  EXPECT_EQ(read_file("b"), "B");
  ASSERT_OK(rename_flags("a", "c", RENAME_NOREPLACE));
  EXPECT_EQ(read_file("c"), "A");
}

TEST_F(Names, RenameExchange) {
  write_file("a", "A");
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  write_file("d/f", "F");
  EXPECT_ERRNO(ENOENT, rename_flags("a", "none", RENAME_EXCHANGE));
  ASSERT_OK(rename_flags("a", "d", RENAME_EXCHANGE));
  EXPECT_EQ(read_file("d"), "A");
  EXPECT_EQ(read_file("a/f"), "F");
  ASSERT_OK(::mkdir(at("sub").c_str(), 0755));
  write_file("sub/x", "X");
  const auto links = stat_of("").st_nlink, sub_links = stat_of("sub").st_nlink;
  ASSERT_OK(rename_flags("a", "sub/x", RENAME_EXCHANGE));  // a directory and a file change places
  EXPECT_EQ(read_file("a"), "X");
  EXPECT_EQ(read_file("sub/x/f"), "F");
  EXPECT_EQ(stat_of("sub/x/..").st_ino, stat_of("sub").st_ino);
  EXPECT_EQ(stat_of("").st_nlink, links - 1);
  EXPECT_EQ(stat_of("sub").st_nlink, sub_links + 1);
}

TEST_F(Names, RenameFlagsThatMakeNoSense) {
  write_file("a", "A");
  EXPECT_ERRNO(EINVAL, rename_flags("a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE));
  EXPECT_ERRNO(EINVAL, rename_flags("a", "b", 1U << 20));
}

// A name that is always replaced by rename is never missing and never half written.
TEST_F(Names, RenameIsAtomicForReaders) {
  const std::string one(5000, '1'), two(5000, '2');
  write_file("file", one);
  std::atomic<bool> stop{false};
  std::set<std::string> problems;
  std::thread reader([&] {
    while (!stop) {
      const Fd fd(::open(at("file").c_str(), O_RDONLY));
      if (!fd.ok()) {
        problems.insert(std::string("open: ") + std::strerror(errno));
        continue;
      }
      std::string bytes(5000, '\0');
      const ssize_t n = ::read(fd.get(), bytes.data(), bytes.size());
      if (n < 0) problems.insert(std::string("read: ") + std::strerror(errno));
      if (n >= 0 && n != 5000) problems.insert("short: " + std::to_string(n));
      if (n == 5000 && bytes != one && bytes != two) {
        const std::size_t change = bytes.find_first_not_of(bytes[0]);
        problems.insert("mixed bytes: begins with '" + std::to_string(bytes[0]) + "', at " +
                        std::to_string(change) + " follows '" +
                        std::to_string(change < bytes.size() ? bytes[change] : bytes[0]) + "'");
      }
    }
  });
  for (int i = 0; i < 200; ++i) {
    write_file("new", i % 2 == 0 ? two : one);
    ASSERT_OK(::rename(at("new").c_str(), at("file").c_str()));
  }
  stop = true;
  reader.join();
  EXPECT_EQ(problems, std::set<std::string>{});
}

}  // namespace
}  // namespace posix
