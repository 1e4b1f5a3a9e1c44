// One random stream of operations, each through one of several mounts of the same file system, compared step
// by step with the model. A step says all that it needs, so any part of a stream can be run again by itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace coherence {

enum class Op {
  kOpen,
  kClose,
  kOpenDir,
  kCloseDir,
  kWrite,
  kRead,
  kTruncate,
  kResize,
  kAllocate,
  kSync,
  kMap,
  kUnmap,
  kMapRead,
  kMapWrite,
  kMkdir,
  kSymlink,
  kFifo,
  kUnlink,
  kRmdir,
  kLink,
  kRename,
  kStat,
  kStatHandle,
  kReadlink,
  kList,
  kReadFile,
  kChmod,
  kChown,
  kTimes,
  kSetXattr,
  kGetXattr,
  kListXattrs,
  kRemoveXattr,
  kLockRecords,
  kLockFile,
  kCompareAll,
};  // clang-format off
struct Step {
  Op op = Op::kStat;
  int mount = 0;
  int slot = 0;  // of a handle, a directory handle or a mapping
  int base = -1;  // slot of the directory handle where paths begin; -1: the test's folder
  std::string path, other;
  std::int64_t a = 0, b = 0;
  int flags = 0;
  unsigned seed = 0;  // of bytes to be written
};
// clang-format on
std::string describe(const Step& step);

struct ScriptOptions {
  std::vector<std::string> mounts;  // the same directory, seen through each
  std::uint64_t seed = 1;
  std::uint64_t ops = 10'000;
  double seconds = 0;   // 0: as many operations as said
  bool shrink = false;  // after a failure: look for a short stream that fails too
  bool only_generate = false;
};
// 0: every answer was right. Prints what was wrong, the steps before it, and how to run it again.
int run_script(const ScriptOptions& options);

}  // namespace coherence
