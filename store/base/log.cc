#include "store/base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace cairn {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::mutex g_mutex;
std::string g_path = "-";
std::shared_ptr<spdlog::logger> g_logger;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

// The level as the config files name it (spdlog says "warning").
class LevelName final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string_view name = message.level == spdlog::level::warn   ? "warn"
                                  : message.level == spdlog::level::err  ? "error"
                                  : message.level == spdlog::level::info ? "info"
                                                                         : "debug";
    out.append(name.data(), name.data() + name.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<LevelName>(); }
};

std::shared_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink) {
  auto logger = std::make_shared<spdlog::logger>("cairn", std::move(sink));
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<LevelName>('L').set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %L %v");
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

std::shared_ptr<spdlog::logger> logger() {
  std::lock_guard lock(g_mutex);
  if (!g_logger) g_logger = make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
  return g_logger;
}

}  // namespace

Result<LogLevel> parse_log_level(std::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  return fail(Code::kConfig, fmt::format("log level '{}' is not one of debug, info, warn, error, off", name));
}

void log_set_level(LogLevel level) {
  g_level = level;
}
bool log_enabled(LogLevel level) {
  return level >= g_level.load(std::memory_order_relaxed);
}

Result<> log_open(const std::string& path) {
  try {
    auto opened = path == "-" ? make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>())
                              : make_logger(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
    std::lock_guard lock(g_mutex);
    g_logger = std::move(opened);
    g_path = path;
    return {};
  } catch (const spdlog::spdlog_ex& e) {
    return fail(Code::kIo, fmt::format("log file '{}' cannot be opened: {}", path, e.what()));
  }
}

Result<> log_reopen() {
  std::string path;
  {
    std::lock_guard lock(g_mutex);
    path = g_path;
  }
  return log_open(path);
}

void log_line(LogLevel level, std::string_view event, std::string_view pairs) {
  logger()->log(to_spdlog(level), "{}{}{}", event, pairs.empty() ? "" : " ", pairs);
}

std::string log_quote(std::string_view value) {
  bool plain = !value.empty();
  for (unsigned char c : value) plain = plain && c > ' ' && c != '"' && c != '\\' && c != 127;
  if (plain) return std::string(value);
  std::string out = "\"";
  for (unsigned char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < ' ' || c == 127) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + '"';
}

}  // namespace cairn
