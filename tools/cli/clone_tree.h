// Clones a file or a tree of a mounted file system with ordinary system calls, so that the kernel checks who
// may do it: contents by copy_file_range(2), which on Cairn shares whole chunks instead of moving bytes, and
// on any other file system copies. What that refuses (two file systems) is read and written.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "store/base/result.h"

namespace cairn::cli {

struct Cloned {
  std::uint64_t files = 0;
  std::uint64_t directories = 0;
  std::uint64_t others = 0;  // symbolic links, further names of a file, devices, pipes, sockets
  std::uint64_t bytes = 0;
};
struct CloneOptions {
  bool recursive = false;
  std::function<void(const Cloned&)> progress;
};
// Mode, times, extended attributes and access control lists are kept, hard links within the tree stay such,
// and the owner too if the caller may give files away. `target` must not exist (kExists). After an error what
// was made of a tree stays; a file that is not complete is removed.
Result<Cloned> clone_tree(const std::string& source, const std::string& target, const CloneOptions& options);

}  // namespace cairn::cli
