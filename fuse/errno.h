// The one place where Cairn's codes become errno numbers for programs. Any thread.
#pragma once

#include "store/base/result.h"

namespace cairn::fuse {

// What kRange ("too large for the place") means to the caller of the operation at hand.
enum class RangeMeans {
  kValue,   // a value that does not fit: ERANGE (getxattr's buffer, listxattr's buffer)
  kOffset,  // an offset or a size past what a file can have: EFBIG
};

// Never ENOSYS: the kernel would take it as "this file system never does that" and stop asking.
int to_errno(Code code, RangeMeans range = RangeMeans::kValue);

// True for what programs meet in normal life (no such file, no permission, full): not worth a log line.
bool is_ordinary(Code code);

}  // namespace cairn::fuse
