// Reading a TOML config into a component's own struct. A key nobody asked for is an error, as is a value of
// the wrong type or outside its range; every message names file, key and what is allowed.
//
//   TRY(auto reader, ConfigReader::open(path));
//   reader.text("listen", config.listen);
//   reader.duration_ms("heartbeat_ms", config.heartbeat, 10ms, 60s);
//   TRYV(reader.finish());
//
// A member keeps its default when the key is absent. Nested tables are named with dots
// ("limits.memory_bytes"). Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"

namespace cairn {

class ConfigReader {
 public:
  static Result<ConfigReader> open(const std::string& path);
  static Result<ConfigReader> parse(std::string_view text, std::string name);
  ConfigReader(ConfigReader&&) noexcept;
  ~ConfigReader();

  void text(std::string_view key, std::string& to);
  void flag(std::string_view key, bool& to);
  void number(std::string_view key, std::uint64_t& to, std::uint64_t min, std::uint64_t max);
  void number(std::string_view key, std::uint32_t& to, std::uint32_t min, std::uint32_t max);
  void duration_ms(std::string_view key, std::chrono::milliseconds& to, std::chrono::milliseconds min,
                   std::chrono::milliseconds max);
  void list(std::string_view key, std::vector<std::string>& to);
  void required(std::string_view key);  // must be present (call before or after reading it)
  // The first problem met, or kConfig naming the unknown keys.
  Result<> finish();

 private:
  struct State;
  explicit ConfigReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Collects `key = value  # comment` lines: what --print-config shows, itself a valid config file.
class ConfigPrinter {
 public:
  void text(std::string_view key, std::string_view value, std::string_view comment);
  void flag(std::string_view key, bool value, std::string_view comment);
  void number(std::string_view key, std::uint64_t value, std::string_view comment);
  void list(std::string_view key, const std::vector<std::string>& values, std::string_view comment);
  std::string take() { return std::move(out_); }

 private:
  void line(std::string_view key, std::string_view value, std::string_view comment);
  std::string out_;
};

}  // namespace cairn
