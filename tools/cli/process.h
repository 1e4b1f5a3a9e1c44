// Starting, finding and stopping the server programs that `cairn up` runs in the background. Each part has a
// folder with config.toml, data/, log and pid. Not thread-safe.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace cairn::cli {

// The folder where this program lies, and with it the server programs. kIo if /proc is not mounted.
Result<std::filesystem::path> program_folder();

// The living process named by `folder`/pid, if it is still `program` with this folder's config (pids are
// reused).
std::optional<int> running_pid(const std::filesystem::path& folder, const std::string& program);

// Starts `program` --config folder/config.toml detached from the terminal, output appended to folder/log, and
// writes folder/pid. kIo when it cannot be started; that it serves is for the caller to see.
Result<int> start_detached(const std::filesystem::path& folder, const std::filesystem::path& program);

// SIGTERM, then waits. kTimeout leaves it running and names it.
Result<> stop(const std::filesystem::path& folder, const std::string& program, std::chrono::seconds timeout);

// SIGKILL, for `cairn down --force`.
void kill_now(int pid);

// Last lines of folder/log, indented, for error messages.
std::string log_tail(const std::filesystem::path& folder, std::size_t lines);

// A TCP port of 127.0.0.1 that nobody listens on now; `preferred` if it is free.
Result<std::uint16_t> free_port(std::uint16_t preferred);

}  // namespace cairn::cli
