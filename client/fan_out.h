// Runs many tasks side by side, at most `width` at once, and waits for all of them.
#pragma once

#include <vector>

#include "store/rpc/task.h"

namespace cairn::client {

// Ends when every task has ended; the first error (in order of the tasks), if any. All tasks are run in any
// case. The tasks run on any io thread.
rpc::Task<Result<>> run_all(rpc::Runtime& runtime, std::vector<rpc::Task<Result<>>> tasks, unsigned width);

}  // namespace cairn::client
