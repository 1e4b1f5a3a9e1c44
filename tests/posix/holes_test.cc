// fallocate(2) and SEEK_DATA, SEEK_HOLE. Sizes are such that a file system that keeps track of large pieces
// only has some of them within each range.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "scratch.h"

namespace posix {
namespace {

class Holes : public Posix {
 protected:
  static constexpr std::uint64_t kMiB = 1 << 20;
  static constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
};

TEST_F(Holes, PunchedRangesAreZeros) {
  std::string bytes = pattern(20 * kMiB);
  write_file("f", bytes);
  Fd fd = open_file("f");
  EXPECT_OK(::fsync(fd.get()));
  const auto before = stat_of("f");
  const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
      {100, 50}, {kMiB - 1, 2}, {3 * kMiB + 17, 10 * kMiB}, {19 * kMiB, 5 * kMiB}, {30 * kMiB, kMiB}};
  for (const auto& [from, length] : ranges) {
    ASSERT_OK(::fallocate(fd.get(), kPunch, static_cast<off_t>(from), static_cast<off_t>(length)));
    if (from >= bytes.size()) continue;
    const std::uint64_t n = std::min<std::uint64_t>(length, bytes.size() - from);
    bytes.replace(from, n, n, '\0');
  }
  EXPECT_TRUE(read_file("f") == bytes);
  const auto after = stat_of("f");
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_LE(after.st_blocks * 512, before.st_blocks * 512 - 4 * 1024 * 1024) << "the space is free again";
  fd.reset();
  EXPECT_TRUE(read_file("f") == bytes);
}

TEST_F(Holes, APunchedRangeTakesBytesAgain) {
  write_file("f", std::string(16 * kMiB, 'a'));
  Fd fd = open_file("f");
  ASSERT_OK(::fallocate(fd.get(), kPunch, 0, 16 * kMiB));
  ASSERT_EQ(::pwrite(fd.get(), "middle", 6, 9 * kMiB), 6);
  std::string expected(16 * kMiB, '\0');
  expected.replace(9 * kMiB, 6, "middle");
  EXPECT_TRUE(read_file("f") == expected);
  EXPECT_OK(::fsync(fd.get()));
  EXPECT_TRUE(read_file("f") == expected);
}

TEST_F(Holes, ZeroRange) {
  std::string bytes = pattern(9 * kMiB);
  write_file("f", bytes);
  Fd fd = open_file("f");
  ASSERT_OK(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, kMiB, 20 * kMiB));
  bytes.replace(kMiB, 8 * kMiB, 8 * kMiB, '\0');
  EXPECT_TRUE(read_file("f") == bytes);
  ASSERT_OK(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 100, 10 * kMiB));
  bytes.replace(100, bytes.size() - 100, 10 * kMiB, '\0');
  EXPECT_TRUE(read_file("f") == bytes);
}

TEST_F(Holes, AllocationExtendsTheFileAndKeepsItsBytes) {
  write_file("f", "bytes");
  Fd fd = open_file("f");
  ASSERT_OK(::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, 5 * kMiB));
  EXPECT_EQ(read_file("f"), "bytes");
  ASSERT_OK(::fallocate(fd.get(), 0, 2, 1000));
  EXPECT_EQ(read_file("f"), "bytes" + std::string(997, '\0'));
  ASSERT_OK(::fallocate(fd.get(), 0, 0, 10));
  EXPECT_EQ(stat_of("f").st_size, 1002) << "it never shrinks";
  EXPECT_EQ(::posix_fallocate(fd.get(), 0, 6 * kMiB), 0);
  EXPECT_EQ(stat_of("f").st_size, static_cast<off_t>(6 * kMiB));
}

TEST_F(Holes, WhatMakesNoSense) {
  Fd fd = open_file("f");
  EXPECT_ERRNO(EINVAL, ::fallocate(fd.get(), 0, 0, 0));
  EXPECT_ERRNO(EINVAL, ::fallocate(fd.get(), 0, -1, 10));
  EXPECT_ERRNO(EOPNOTSUPP, ::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE, 0, 10));
  Fd reader = open_file("f", O_RDONLY);
  EXPECT_ERRNO(EBADF, ::fallocate(reader.get(), 0, 0, 10));
}

TEST_F(Holes, MoreThanThereIsRoomFor) {
  Fd fd = open_file("f");
  errno = 0;
  EXPECT_LT(::fallocate(fd.get(), 0, 0, off_t{1} << 50), 0);
  EXPECT_TRUE(errno == ENOSPC || errno == EFBIG) << std::strerror(errno);
  EXPECT_EQ(stat_of("f").st_size, 0);
}

TEST_F(Holes, SeekFindsDataAndHoles) {
  Fd fd = open_file("f");
  const std::string some(kMiB, 'x');
  ASSERT_EQ(::pwrite(fd.get(), some.data(), some.size(), 0), static_cast<ssize_t>(some.size()));
  ASSERT_EQ(::pwrite(fd.get(), some.data(), some.size(), 40 * kMiB), static_cast<ssize_t>(some.size()));
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(::lseek(fd.get(), 5, SEEK_DATA), 5);
    const off_t hole = ::lseek(fd.get(), 0, SEEK_HOLE);
    EXPECT_GE(hole, static_cast<off_t>(kMiB));
    EXPECT_LE(hole, static_cast<off_t>(20 * kMiB));
    const off_t data = ::lseek(fd.get(), 20 * kMiB, SEEK_DATA);
    EXPECT_GT(data, static_cast<off_t>(20 * kMiB)) << "a hole of 39 MiB is seen";
    EXPECT_LE(data, static_cast<off_t>(40 * kMiB));
    EXPECT_EQ(::lseek(fd.get(), 20 * kMiB, SEEK_HOLE), static_cast<off_t>(20 * kMiB));
    EXPECT_EQ(::lseek(fd.get(), 40 * kMiB, SEEK_HOLE), static_cast<off_t>(41 * kMiB)) << "the end is a hole";
    EXPECT_ERRNO(ENXIO, ::lseek(fd.get(), 41 * kMiB, SEEK_DATA));
    EXPECT_ERRNO(ENXIO, ::lseek(fd.get(), 41 * kMiB, SEEK_HOLE));
    EXPECT_OK(::fsync(fd.get()));
  }
  ASSERT_OK(::fallocate(fd.get(), kPunch, 0, 40 * kMiB));
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_HOLE), 0) << "a punched range is a hole";
  EXPECT_GT(::lseek(fd.get(), 0, SEEK_DATA), static_cast<off_t>(30 * kMiB));
}

TEST_F(Holes, RandomOperationsAgainstAModel) {
  constexpr std::uint64_t kMax = 24 * kMiB;
  std::mt19937_64 rng(7);
  const auto below = [&](std::uint64_t n) { return rng() % n; };
  std::string model;
  Fd fd = open_file("f");
  for (int step = 0; step < 300; ++step) {
    SCOPED_TRACE(step);
    const std::uint64_t from = below(kMax), length = 1 + below(below(2) ? kMax - from : 9000);
    const off_t at = static_cast<off_t>(from), n = static_cast<off_t>(length);
    const std::uint64_t within = from < model.size() ? std::min(length, model.size() - from) : 0;
    switch (below(6)) {
      case 0:
        ASSERT_OK(::fallocate(fd.get(), kPunch, at, n));
        if (within > 0) model.replace(from, within, within, '\0');
        break;
      case 1:
        ASSERT_OK(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, at, n));
        if (within > 0) model.replace(from, within, within, '\0');
        if (model.size() < from + length) model.resize(from + length, '\0');
        break;
      case 2:
        ASSERT_OK(::ftruncate(fd.get(), at));
        model.resize(from, '\0');
        break;
      case 3:
      case 4: {
        const std::string bytes =
            pattern(std::min<std::uint64_t>(length, 2 * kMiB), static_cast<unsigned>(step));
        ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), at), static_cast<ssize_t>(bytes.size()));
        if (model.size() < from + bytes.size()) model.resize(from + bytes.size(), '\0');
        model.replace(from, bytes.size(), bytes);
        break;
      }
      default: {
        if (below(3) == 0) {
          fd.reset();
          fd = open_file("f");
        }
        std::string got(within, '\0');
        ASSERT_EQ(::pread(fd.get(), got.data(), within, at), static_cast<ssize_t>(within));
        ASSERT_TRUE(within == 0 || got == model.substr(from, within));
      }
    }
  }
  ASSERT_TRUE(read_file("f") == model);
}

}  // namespace
}  // namespace posix
