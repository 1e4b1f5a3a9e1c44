// posix_test DIR [gtest options]: checks that the file system under DIR behaves as POSIX (and Linux) say. DIR
// must exist; every test works in a directory of its own below it. Run as root for the tests of ownership and
// permissions.
#include <cstdio>
#include <cstring>
#include <string>

#include "scratch.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: posix_test DIR [--gtest_filter=...]\n");
    return 2;
  }
  struct stat st {};
  if (::stat(argv[1], &st) != 0 || !S_ISDIR(st.st_mode)) {
    std::fprintf(stderr, "posix_test: %s: %s\n", argv[1],
                 errno != 0 ? std::strerror(errno) : "not a directory");
    return 2;
  }
  posix::root() = argv[1];
  return RUN_ALL_TESTS();
}
