// Memory-mapped files.
#include <sys/mman.h>

#include <csignal>
#include <cstring>

#include "scratch.h"

namespace posix {
namespace {

class Mapping : public Posix {
 protected:
  struct Map {
    Map(void* at, std::size_t size) : bytes(static_cast<char*>(at)), size(size) {}
    ~Map() {
      if (ok()) ::munmap(bytes, size);
    }
    Map(const Map&) = delete;
    bool ok() const { return bytes != MAP_FAILED; }
    char* bytes;
    std::size_t size;
  };
  static Map map(const Fd& fd, std::size_t size, int protection, int flags) {
    return {::mmap(nullptr, size, protection, flags, fd.get(), 0), size};
  }
};

TEST_F(Mapping, Reads) {
  const std::string bytes = pattern(1'000'000);
  write_file("f", bytes);
  Fd fd = open_file("f", O_RDONLY);
  for (int flags : {MAP_SHARED, MAP_PRIVATE}) {
    Map mapped = map(fd, bytes.size(), PROT_READ, flags);
    ASSERT_TRUE(mapped.ok()) << std::strerror(errno);
    EXPECT_EQ(std::memcmp(mapped.bytes, bytes.data(), bytes.size()), 0);
  }
}

TEST_F(Mapping, SharedWritesReachTheFile) {
  write_file("f", std::string(200'000, 'a'));
  {
    Fd fd = open_file("f", O_RDWR);
    Map mapped = map(fd, 200'000, PROT_READ | PROT_WRITE, MAP_SHARED);
    ASSERT_TRUE(mapped.ok()) << std::strerror(errno);
    fd.reset();  // the mapping stays
    std::memset(mapped.bytes + 100'000, 'b', 50);
    ASSERT_OK(::msync(mapped.bytes, mapped.size, MS_SYNC));
    EXPECT_EQ(read_file("f").substr(99'999, 52), "a" + std::string(50, 'b') + "a");
    mapped.bytes[0] = 'c';
  }
  EXPECT_EQ(read_file("f")[0], 'c') << "munmap writes back too";
}

TEST_F(Mapping, SeesWritesOfOthers) {
  write_file("f", std::string(8192, 'a'));
  Fd fd = open_file("f", O_RDWR);
  Map mapped = map(fd, 8192, PROT_READ, MAP_SHARED);
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(mapped.bytes[5000], 'a');
  ASSERT_EQ(::pwrite(fd.get(), "z", 1, 5000), 1);
  EXPECT_EQ(mapped.bytes[5000], 'z');
}

TEST_F(Mapping, PrivateWritesStayPrivate) {
  write_file("f", "original");
  Fd fd = open_file("f", O_RDWR);
  Map mapped = map(fd, 8, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  ASSERT_TRUE(mapped.ok());
  mapped.bytes[0] = 'X';
  EXPECT_EQ(read_file("f"), "original");
}

TEST_F(Mapping, BetweenProcesses) {
  write_file("f", std::string(4096, '\0'));
  Fd fd = open_file("f", O_RDWR);
  Map mapped = map(fd, 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
  ASSERT_TRUE(mapped.ok());
  ASSERT_EQ(in_child([&] {
              mapped.bytes[7] = 42;
              return 0;
            }),
            0);
  EXPECT_EQ(mapped.bytes[7], 42);
}

TEST_F(Mapping, PastTheEndIsSigbus) {
  write_file("f", std::string(100, 'a'));
  Fd fd = open_file("f", O_RDWR);
  EXPECT_EQ(in_child([&] {
              ::signal(SIGBUS, SIG_DFL);  // a sanitizer would catch it
              Map mapped = map(fd, 8192, PROT_READ, MAP_SHARED);
              if (!mapped.ok() || mapped.bytes[100] != 0) return 1;  // the rest of the last page is zeros
              return mapped.bytes[5000] == 0 ? 2 : 3;
            }),
            1000 + SIGBUS);
}

TEST_F(Mapping, RunsAProgram) {
  // A program is mapped and executed; while it runs nobody may write to it.
  write_file("prog", "#!/bin/sh\nexit 7\n");
  ASSERT_OK(::chmod(at("prog").c_str(), 0755));
  EXPECT_EQ(in_child([&] {
              ::execl(at("prog").c_str(), "prog", nullptr);
              return 100;
            }),
            7);
}

}  // namespace
}  // namespace posix
