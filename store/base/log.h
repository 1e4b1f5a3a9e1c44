// Logging: an event name plus key=value pairs, e.g. log_warn("chunk_corrupt", "chunk={} target={}", id,
// target). `error` means an operator should act; expected trouble is `warn` or a counter. One failure, one
// line, where it is handled. Thread-safe. Lines go to stderr until log_open() names a file; a line is written
// before the call returns.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

#include "store/base/result.h"

namespace cairn {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

Result<LogLevel> parse_log_level(std::string_view name);  // debug, info, warn, error, off
void log_set_level(LogLevel level);
bool log_enabled(LogLevel level);
// Appends to `path`; "-" is stderr. kIo names the file when it cannot be opened.
Result<> log_open(const std::string& path);
// Reopens the file by name, for logrotate (SIGHUP).
Result<> log_reopen();
void log_line(LogLevel level, std::string_view event, std::string_view pairs);

// Quotes a value when it holds spaces, quotes or control characters, so that lines stay parseable.
std::string log_quote(std::string_view value);

template <class... Args>
void log_at(LogLevel level, std::string_view event, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, event, fmt::format(format, std::forward<Args>(args)...));
}
#define CAIRN_LOG_FN(name, level)                                                         \
  template <class... Args>                                                                \
  void name(std::string_view event, fmt::format_string<Args...> format, Args&&... args) { \
    log_at(level, event, format, std::forward<Args>(args)...);                            \
  }                                                                                       \
  inline void name(std::string_view event) {                                              \
    if (log_enabled(level)) log_line(level, event, {});                                   \
  }
CAIRN_LOG_FN(log_debug, LogLevel::kDebug)
CAIRN_LOG_FN(log_info, LogLevel::kInfo)
CAIRN_LOG_FN(log_warn, LogLevel::kWarn)
CAIRN_LOG_FN(log_error, LogLevel::kError)
#undef CAIRN_LOG_FN

}  // namespace cairn
