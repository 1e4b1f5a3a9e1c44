// Reading and writing: sizes, offsets, holes, append, truncation, durability calls.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "scratch.h"

namespace posix {
namespace {

using Io = Posix;

// Around every boundary that a file system may have.
TEST_F(Io, SizesAndOffsets) {
  for (const std::size_t size : {0UL, 1UL, 511UL, 4095UL, 4096UL, 4097UL, 65536UL, 131073UL, (1UL << 20) - 1,
                                 (1UL << 20) + 1, (4UL << 20) + 4097}) {
    const std::string bytes = pattern(size, static_cast<unsigned>(size));
    write_file("f", bytes);
    EXPECT_EQ(stat_of("f").st_size, static_cast<off_t>(size));
    EXPECT_TRUE(read_file("f") == bytes) << size;
  }
}

TEST_F(Io, OneLargeRequest) {
  const std::string bytes = pattern(24 << 20);
  {
    Fd fd = open_file("f");
    ASSERT_EQ(::write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    ASSERT_OK(::fsync(fd.get()));
  }
  Fd fd = open_file("f", O_RDONLY);
  ASSERT_OK(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED));
  std::string back(bytes.size(), '\0');
  std::size_t got = 0;
  for (ssize_t n; got < back.size() && (n = ::read(fd.get(), back.data() + got, back.size() - got)) > 0;)
    got += n;
  EXPECT_TRUE(back == bytes);
}

TEST_F(Io, ReadsEndAtTheEnd) {
  write_file("f", "12345");
  Fd fd = open_file("f", O_RDONLY);
  char bytes[16] = {};
  EXPECT_EQ(::pread(fd.get(), bytes, 16, 0), 5);
  EXPECT_EQ(::pread(fd.get(), bytes, 16, 3), 2);
  EXPECT_EQ(::pread(fd.get(), bytes, 16, 5), 0);
  EXPECT_EQ(::pread(fd.get(), bytes, 16, 1 << 20), 0);
  EXPECT_ERRNO(EINVAL, ::pread(fd.get(), bytes, 16, -1));
  EXPECT_ERRNO(EBADF, ::write(fd.get(), bytes, 1));
  Fd write_only = open_file("f", O_WRONLY);
  EXPECT_ERRNO(EBADF, ::read(write_only.get(), bytes, 1));
}

// What a random mix of writes, truncations and reads leaves must equal a string in memory.
TEST_F(Io, RandomOperationsAgainstAModel) {
  Fd fd = open_file("f");
  std::string model;
  std::uint64_t seed = 42;
  auto below = [&](std::uint64_t n) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (seed >> 33) % n;
  };
  for (int step = 0; step < 1500; ++step) {
    const std::size_t offset = below(300'000), size = 1 + below(40'000);
    switch (below(5)) {
      case 0:
      case 1: {
        const std::string bytes = pattern(size, step);
        ASSERT_EQ(::pwrite(fd.get(), bytes.data(), size, offset), static_cast<ssize_t>(size));
        if (model.size() < offset + size) model.resize(offset + size, '\0');
        model.replace(offset, size, bytes);
        break;
      }
      case 2:
        ASSERT_OK(::ftruncate(fd.get(), offset));
        model.resize(offset, '\0');
        break;
      case 3:
        if (below(4) == 0) {  // another descriptor, another way in
          fd = open_file("f", O_RDWR);
        }
        break;
      default: {
        std::string bytes(size, 'x');
        const ssize_t n = ::pread(fd.get(), bytes.data(), size, offset);
        ASSERT_GE(n, 0);
        bytes.resize(n);
        ASSERT_TRUE(bytes == (offset < model.size() ? model.substr(offset, size) : "")) << "step " << step;
        break;
      }
    }
    struct stat st {};
    ASSERT_OK(::fstat(fd.get(), &st));
    ASSERT_EQ(st.st_size, static_cast<off_t>(model.size())) << "step " << step;
  }
  fd.reset();
  EXPECT_TRUE(read_file("f") == model);
}

TEST_F(Io, HolesAreZeros) {
  constexpr off_t far = 3LL << 30;
  Fd fd = open_file("sparse");
  ASSERT_EQ(::pwrite(fd.get(), "end", 3, far), 3);
  struct stat st {};
  ASSERT_OK(::fstat(fd.get(), &st));
  EXPECT_EQ(st.st_size, far + 3);
  EXPECT_LT(st.st_blocks * 512, 64 << 20) << "a hole takes no space";
  std::string bytes(100'000, 'x');
  ASSERT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), far / 2), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(bytes.find_first_not_of('\0'), std::string::npos);
  ASSERT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), far - 10), 13);
  EXPECT_EQ(bytes.substr(0, 13), std::string(10, '\0') + "end");
}

TEST_F(Io, Truncate) {
  write_file("f", pattern(100'000));
  ASSERT_OK(::truncate(at("f").c_str(), 5'000));
  EXPECT_EQ(stat_of("f").st_size, 5'000);
  ASSERT_OK(::truncate(at("f").c_str(), 50'000));
  const std::string bytes = read_file("f");
  ASSERT_EQ(bytes.size(), 50'000u);
  EXPECT_TRUE(bytes.substr(0, 5'000) == pattern(100'000).substr(0, 5'000));
  EXPECT_EQ(bytes.find_first_not_of('\0', 5'000), std::string::npos) << "old bytes came back";
  ASSERT_OK(::truncate(at("f").c_str(), 0));
  EXPECT_EQ(stat_of("f").st_size, 0);
  EXPECT_ERRNO(ENOENT, ::truncate(at("none").c_str(), 0));
  EXPECT_ERRNO(EISDIR, ::truncate(dir().c_str(), 0));
  EXPECT_ERRNO(EINVAL, ::truncate(at("f").c_str(), -1));
}

TEST_F(Io, OpenTruncates) {
  write_file("f", "something long");
  Fd reader = open_file("f", O_RDONLY);
  Fd fd = open_file("f", O_WRONLY | O_TRUNC);
  EXPECT_EQ(stat_of("f").st_size, 0);
  ASSERT_EQ(::write(fd.get(), "new", 3), 3);
  fd.reset();
  char bytes[32] = {};
  EXPECT_EQ(::pread(reader.get(), bytes, sizeof bytes, 0), 3);
  EXPECT_STREQ(bytes, "new");
}

TEST_F(Io, AppendGoesToTheEnd) {
  write_file("f", "12345");
  Fd append = open_file("f", O_RDWR | O_APPEND);
  ASSERT_EQ(::write(append.get(), "A", 1), 1);
  Fd plain = open_file("f", O_RDWR);
  ASSERT_EQ(::pwrite(plain.get(), "x", 1, 20), 1);
  ASSERT_EQ(::write(append.get(), "B", 1), 1);
  EXPECT_EQ(read_file("f"), std::string("12345A") + std::string(14, '\0') + "xB");
  EXPECT_EQ(::lseek(append.get(), 0, SEEK_CUR), 22);
  // Linux: pwrite on an O_APPEND descriptor appends too.
  ASSERT_EQ(::pwrite(append.get(), "C", 1, 0), 1);
  EXPECT_EQ(read_file("f").size(), 23u);
  EXPECT_EQ(read_file("f").back(), 'C');
  char byte = 0;
  EXPECT_EQ(::pread(append.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, '1');
}

// The flag belongs to the descriptor and can be changed at any time.
TEST_F(Io, AppendSetAndClearedByFcntl) {
  write_file("f", "12345");
  Fd fd = open_file("f", O_RDWR);
  ASSERT_OK(::fcntl(fd.get(), F_SETFL, O_APPEND));
  ASSERT_EQ(::write(fd.get(), "A", 1), 1);
  ASSERT_EQ(::write(fd.get(), "B", 1), 1);
  EXPECT_EQ(read_file("f"), "12345AB");
  ASSERT_OK(::fcntl(fd.get(), F_SETFL, 0));
  ASSERT_EQ(::pwrite(fd.get(), "0", 1, 0), 1);
  EXPECT_EQ(read_file("f"), "02345AB");

  Fd append = open_file("f", O_RDWR | O_APPEND);
  ASSERT_OK(::fcntl(append.get(), F_SETFL, 0));
  ASSERT_EQ(::pwrite(append.get(), "x", 1, 1), 1);
  EXPECT_EQ(read_file("f"), "0x345AB");
  ASSERT_OK(::fcntl(append.get(), F_SETFL, O_APPEND));
  ASSERT_EQ(::pwrite(append.get(), "C", 1, 1), 1);
  EXPECT_EQ(read_file("f"), "0x345ABC");
}

TEST_F(Io, ConcurrentAppendsKeepEveryRecord) {
  constexpr int writers = 4, records = 200;
  constexpr std::size_t length = 64;
  write_file("log", "");
  std::vector<std::thread> threads;
  for (int w = 0; w < writers; ++w) {
    threads.emplace_back([&, w] {
      const Fd fd(::open(at("log").c_str(), O_WRONLY | O_APPEND));
      for (int r = 0; r < records; ++r) {
        std::string record = std::to_string(w) + ":" + std::to_string(r);
        record.resize(length - 1, '.');
        record += '\n';
        if (::write(fd.get(), record.data(), record.size()) != static_cast<ssize_t>(length)) return;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string all = read_file("log");
  ASSERT_EQ(all.size(), writers * records * length);
  std::set<std::string> seen;
  for (std::size_t i = 0; i < all.size(); i += length) {
    ASSERT_EQ(all[i + length - 1], '\n');
    seen.insert(all.substr(i, length));
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(writers * records));
}

TEST_F(Io, WritersOfDisjointParts) {
  constexpr int writers = 4;
  constexpr std::size_t part = 10'000, rounds = 30;
  write_file("f", "");
  std::vector<std::thread> threads;
  for (int w = 0; w < writers; ++w) {
    threads.emplace_back([&, w] {
      const Fd fd(::open(at("f").c_str(), O_RDWR));
      for (std::size_t r = 0; r < rounds; ++r) {
        const std::string bytes(part, static_cast<char>('a' + w));
        if (::pwrite(fd.get(), bytes.data(), part, (r * writers + w) * part) != static_cast<ssize_t>(part))
          return;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string all = read_file("f");
  ASSERT_EQ(all.size(), writers * part * rounds);
  for (std::size_t i = 0; i < all.size(); i += part) {
    EXPECT_EQ(all.find_first_not_of(static_cast<char>('a' + (i / part) % writers), i),
              i + part < all.size() ? i + part : std::string::npos);
  }
}

TEST_F(Io, VectorsAndSeeks) {
  Fd fd = open_file("f");
  char one[] = "one", two[] = "two";
  iovec parts[] = {{one, 3}, {two, 3}};
  ASSERT_EQ(::writev(fd.get(), parts, 2), 6);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_CUR), 6);
  EXPECT_EQ(::lseek(fd.get(), -2, SEEK_END), 4);
  EXPECT_EQ(::lseek(fd.get(), 100, SEEK_SET), 100);
  EXPECT_ERRNO(EINVAL, ::lseek(fd.get(), -1, SEEK_SET));
  ASSERT_EQ(::lseek(fd.get(), 0, SEEK_SET), 0);
  char a[4] = {}, b[4] = {};
  iovec into[] = {{a, 2}, {b, 4}};
  ASSERT_EQ(::readv(fd.get(), into, 2), 6);
  EXPECT_STREQ(a, "on");
}

TEST_F(Io, DirectIo) {
  Fd fd(::open(at("f").c_str(), O_RDWR | O_CREAT | O_DIRECT, 0644));
  if (!fd.ok() && errno == EINVAL) GTEST_SKIP() << "no O_DIRECT here";
  ASSERT_TRUE(fd.ok()) << std::strerror(errno);
  constexpr std::size_t size = 1 << 20;
  std::unique_ptr<char, decltype(&std::free)> buffer(static_cast<char*>(std::aligned_alloc(4096, size)),
                                                     std::free);
  const std::string bytes = pattern(size);
  std::memcpy(buffer.get(), bytes.data(), size);
  ASSERT_EQ(::pwrite(fd.get(), buffer.get(), size, 0), static_cast<ssize_t>(size));
  EXPECT_TRUE(read_file("f") == bytes);
  Fd cached = open_file("f", O_RDWR);
  ASSERT_EQ(::pwrite(cached.get(), "changed", 7, 4096), 7);
  std::memset(buffer.get(), 0, size);
  ASSERT_EQ(::pread(fd.get(), buffer.get(), 8192, 0), 8192);
  EXPECT_EQ(std::memcmp(buffer.get() + 4096, "changed", 7), 0);
}

TEST_F(Io, SyncCalls) {
  Fd fd = open_file("f");
  ASSERT_EQ(::write(fd.get(), "x", 1), 1);
  EXPECT_OK(::fsync(fd.get()));
  EXPECT_OK(::fdatasync(fd.get()));
  EXPECT_OK(::syncfs(fd.get()));
  Fd directory(::open(dir().c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_OK(::fsync(directory.get()));
  Fd synced(::open(at("g").c_str(), O_RDWR | O_CREAT | O_SYNC, 0644));
  ASSERT_EQ(::write(synced.get(), "x", 1), 1);
  EXPECT_EQ(read_file("g"), "x");
}

TEST_F(Io, DescriptorSharedWithAChild) {
  Fd fd = open_file("f");
  ASSERT_EQ(::write(fd.get(), "parent", 6), 6);
  ASSERT_EQ(in_child([&] { return ::write(fd.get(), "child", 5) == 5 ? 0 : 1; }), 0);
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_CUR), 11) << "one position for both";
  EXPECT_EQ(read_file("f"), "parentchild");
}

TEST_F(Io, CopyBetweenFiles) {
  const std::string bytes = pattern(300'000);
  write_file("from", bytes);
  Fd from = open_file("from", O_RDONLY), to = open_file("to");
  std::size_t done = 0;
  for (ssize_t n; done < bytes.size() &&
                  (n = ::copy_file_range(from.get(), nullptr, to.get(), nullptr, bytes.size(), 0)) > 0;)
    done += n;
  EXPECT_EQ(done, bytes.size()) << std::strerror(errno);
  EXPECT_TRUE(read_file("to") == bytes);
}

}  // namespace
}  // namespace posix
