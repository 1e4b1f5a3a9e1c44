// copy_file_range(2). Sizes and places are such that a file system which shares large pieces between files
// does so in some of the copies, and must keep the files apart whatever happens to either afterwards.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "scratch.h"

namespace posix {
namespace {

class CopyRange : public Posix {
 protected:
  static constexpr std::uint64_t kMiB = 1 << 20;
  static constexpr std::uint64_t kPiece = 4 * kMiB;

  // As cp(1) does it: until nothing is left.
  static std::uint64_t copy(const Fd& from, std::uint64_t from_offset, const Fd& to, std::uint64_t to_offset,
                            std::uint64_t length) {
    auto in = static_cast<off_t>(from_offset), out = static_cast<off_t>(to_offset);
    std::uint64_t done = 0;
    while (done < length) {
      const ssize_t n = ::copy_file_range(from.get(), &in, to.get(), &out, length - done, 0);
      EXPECT_GE(n, 0) << std::strerror(errno);
      if (n <= 0) break;
      done += static_cast<std::uint64_t>(n);
    }
    EXPECT_EQ(static_cast<std::uint64_t>(in), from_offset + done);
    EXPECT_EQ(static_cast<std::uint64_t>(out), to_offset + done);
    return done;
  }
  void clone(std::string_view from, std::string_view to) const {
    Fd source = open_file(from, O_RDONLY), target = open_file(to);
    const auto size = static_cast<std::uint64_t>(stat_of(from).st_size);
    EXPECT_EQ(copy(source, 0, target, 0, size + 1), size);
  }
  static void put(const Fd& fd, std::string& model, std::uint64_t offset, std::string_view bytes) {
    ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
    if (model.size() < offset + bytes.size()) model.resize(offset + bytes.size(), '\0');
    model.replace(offset, bytes.size(), bytes);
  }
};

TEST_F(CopyRange, ACopyAndItsSourceGoTheirOwnWays) {
  std::string a = pattern(3 * kPiece + 12345);
  write_file("a", a);
  clone("a", "b");
  std::string b = a;
  EXPECT_TRUE(read_file("b") == b);
  Fd fa = open_file("a"), fb = open_file("b");
  put(fa, a, kPiece + 77, "changed in the source");
  put(fb, b, 2 * kPiece - 5, "across a border of the copy");
  put(fb, b, b.size(), "behind the end");
  EXPECT_TRUE(read_file("a") == a);
  EXPECT_TRUE(read_file("b") == b);
  EXPECT_OK(::fsync(fa.get()));
  EXPECT_OK(::fsync(fb.get()));
  EXPECT_TRUE(read_file("a") == a);
  EXPECT_TRUE(read_file("b") == b);
  fa.reset();
  ASSERT_OK(::unlink(at("a").c_str()));
  EXPECT_TRUE(read_file("b") == b);
}

TEST_F(CopyRange, WhatIsNotYetOnDiskIsCopied) {
  Fd fa = open_file("a"), fb = open_file("b");
  std::string a;
  put(fa, a, 0, pattern(2 * kPiece + 1, 3));
  put(fa, a, kPiece, "just now");
  EXPECT_EQ(copy(fa, 0, fb, 0, a.size()), a.size());
  put(fa, a, 3, "and later");
  EXPECT_FALSE(read_file("b") == a);
  a.replace(3, 9, pattern(2 * kPiece + 1, 3).substr(3, 9));
  EXPECT_TRUE(read_file("b") == a);
}

TEST_F(CopyRange, AnyPlaceAndLength) {
  const std::string a = pattern(4 * kPiece + 100, 5);
  write_file("a", a);
  struct {
    std::uint64_t from, to, length;
  } const cases[] = {{0, 2 * kPiece, 2 * kPiece},
                     {kPiece, 0, 3 * kPiece + 100},
                     {10, 10, 2 * kPiece},
                     {10, kPiece + 10, 2 * kPiece + 7},
                     {0, 1, kPiece + 5},
                     {kPiece + 3, 3 * kPiece + 4, 2 * kPiece},
                     {kPiece, 6 * kPiece, kPiece},
                     {3 * kPiece, 3 * kPiece, kPiece + 100},
                     {4 * kPiece, 4 * kPiece, 100},
                     {2 * kPiece, 2 * kPiece + 1, 1},
                     {0, 0, 5 * kPiece}};
  std::string b = pattern(4 * kPiece + 5000, 9);
  write_file("b", b);
  Fd fa = open_file("a", O_RDONLY), fb = open_file("b");
  for (const auto& one : cases) {
    SCOPED_TRACE(std::to_string(one.from) + " " + std::to_string(one.to) + " " + std::to_string(one.length));
    const std::uint64_t n = std::min<std::uint64_t>(one.length, a.size() - one.from);
    ASSERT_EQ(copy(fa, one.from, fb, one.to, one.length), n);
    if (b.size() < one.to + n) b.resize(one.to + n, '\0');
    b.replace(one.to, n, a.substr(one.from, n));
    ASSERT_EQ(stat_of("b").st_size, static_cast<off_t>(b.size()));
    ASSERT_TRUE(read_file("b") == b);
  }
  EXPECT_TRUE(read_file("a") == a);
}

TEST_F(CopyRange, WithinOneFile) {
  std::string a = pattern(3 * kPiece, 7);
  write_file("a", a);
  Fd fd = open_file("a");
  ASSERT_EQ(copy(fd, 0, fd, 2 * kPiece, kPiece), kPiece);
  a.replace(2 * kPiece, kPiece, a.substr(0, kPiece));
  ASSERT_EQ(copy(fd, kPiece, fd, 5 * kPiece, 2 * kPiece), 2 * kPiece);
  a.resize(7 * kPiece, '\0');
  a.replace(5 * kPiece, 2 * kPiece, a.substr(kPiece, 2 * kPiece));
  EXPECT_TRUE(read_file("a") == a);
  put(fd, a, 17, "x");
  put(fd, a, 6 * kPiece + 17, "y");
  EXPECT_TRUE(read_file("a") == a);
  off_t in = 0, out = 1000;
  EXPECT_ERRNO(EINVAL, ::copy_file_range(fd.get(), &in, fd.get(), &out, 2000, 0));  // they overlap
}

TEST_F(CopyRange, ACopyIsCutAndGrowsAgain) {
  const std::string a = pattern(3 * kPiece, 11);
  write_file("a", a);
  clone("a", "b");
  std::string b = a;
  for (const std::uint64_t size : {2 * kPiece + 1000, kPiece, std::uint64_t{1}}) {
    ASSERT_OK(::truncate(at("b").c_str(), static_cast<off_t>(size)));
    ASSERT_OK(::truncate(at("b").c_str(), static_cast<off_t>(3 * kPiece)));
    b.resize(size);
    b.resize(3 * kPiece, '\0');
    ASSERT_TRUE(read_file("b") == b) << size;
  }
  EXPECT_TRUE(read_file("a") == a);
  clone("a", "c");
  ASSERT_OK(::truncate(at("a").c_str(), 5));
  ASSERT_OK(::truncate(at("a").c_str(), 100));
  EXPECT_TRUE(read_file("a") == a.substr(0, 5) + std::string(95, '\0'));
  EXPECT_TRUE(read_file("c") == a);
  Fd emptied = open_file("c", O_WRONLY | O_TRUNC);
  EXPECT_EQ(read_file("c"), "");
}

TEST_F(CopyRange, HolesAndPunchedRanges) {
  Fd fa = open_file("a");
  std::string a(4 * kPiece, '\0');
  ASSERT_OK(::ftruncate(fa.get(), static_cast<off_t>(a.size())));
  put(fa, a, kPiece + 5, "an island");
  clone("a", "b");
  std::string b = a;
  EXPECT_TRUE(read_file("b") == b);
  Fd fb = open_file("b");
  put(fb, b, 3 * kPiece, "another");
  constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  ASSERT_OK(::fallocate(fb.get(), kPunch, kPiece, kPiece));
  b.replace(kPiece, kPiece, kPiece, '\0');
  EXPECT_TRUE(read_file("b") == b);
  EXPECT_TRUE(read_file("a") == a);
  // Zeros over what was there.
  Fd fc = open_file("c");
  std::string c;
  put(fc, c, 0, pattern(4 * kPiece, 13));
  ASSERT_EQ(copy(fa, 0, fc, 0, 4 * kPiece), 4 * kPiece);
  EXPECT_TRUE(read_file("c") == a);
}

TEST_F(CopyRange, CopiesOfCopies) {
  std::string model = pattern(3 * kPiece + 3, 17);
  write_file("0", model);
  std::vector<std::string> all{model};
  for (int i = 1; i < 12; ++i) {
    const std::string name = std::to_string(i);
    clone(std::to_string(i - 1), name);
    Fd fd = open_file(name);
    put(fd, model, static_cast<std::uint64_t>(i) * 1'000'003 % model.size(), "generation " + name);
    all.push_back(model);
  }
  for (std::size_t i = 0; i < all.size(); i += 2) ASSERT_OK(::unlink(at(std::to_string(i)).c_str()));
  for (std::size_t i = 1; i < all.size(); i += 2) EXPECT_TRUE(read_file(std::to_string(i)) == all[i]) << i;
}

TEST_F(CopyRange, TimesChange) {
  write_file("a", std::string(kPiece, 'a'));
  write_file("b", "b");
  const timespec old[] = {{1000, 0}, {1000, 0}};
  ASSERT_OK(::utimensat(AT_FDCWD, at("b").c_str(), old, 0));
  const auto before = stat_of("b");
  clone("a", "b");
  EXPECT_GT(stat_of("b").st_mtim.tv_sec, 1'000'000);
  EXPECT_GE(stat_of("b").st_ctim.tv_sec, before.st_ctim.tv_sec);
}

TEST_F(CopyRange, Errors) {
  write_file("a", "source");
  Fd source = open_file("a", O_RDONLY), target = open_file("b");
  EXPECT_EQ(copy(source, 6, target, 0, 10), 0u) << "at the end";
  EXPECT_EQ(copy(source, 1000, target, 0, 10), 0u) << "behind it";
  EXPECT_EQ(stat_of("b").st_size, 0);
  EXPECT_ERRNO(EBADF, ::copy_file_range(target.get(), nullptr, source.get(), nullptr, 1, 0));
  Fd append = open_file("b", O_WRONLY | O_APPEND);
  EXPECT_ERRNO(EBADF, ::copy_file_range(source.get(), nullptr, append.get(), nullptr, 1, 0));
  Fd directory(::open(dir().c_str(), O_RDONLY));
  EXPECT_ERRNO(EISDIR, ::copy_file_range(directory.get(), nullptr, target.get(), nullptr, 1, 0));
}

}  // namespace
}  // namespace posix
