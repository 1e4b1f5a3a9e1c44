#include "store/base/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <set>

namespace cairn {
namespace {

void leaf_keys(const toml::table& table, const std::string& prefix, std::set<std::string>& out) {
  for (auto&& [key, node] : table) {
    std::string path = prefix.empty() ? std::string(key.str()) : prefix + "." + std::string(key.str());
    if (const toml::table* inner = node.as_table())
      leaf_keys(*inner, path, out);
    else
      out.insert(path);
  }
}

// TOML basic strings share JSON's escapes for what can occur in a path or an address.
std::string quoted(std::string_view value) {
  std::string out = "\"";
  for (char c : value) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

struct ConfigReader::State {
  std::string name;
  toml::table table;
  std::set<std::string> unread;
  std::set<std::string> present;
  Result<> problem;

  void fail_with(std::string_view key, std::string_view text) {
    if (problem) problem = fail(Code::kConfig, fmt::format("{}: '{}' {}", name, key, text));
  }
  toml::node_view<toml::node> take(std::string_view key) {
    unread.erase(std::string(key));
    return table.at_path(key);
  }
};

ConfigReader::ConfigReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
ConfigReader::ConfigReader(ConfigReader&&) noexcept = default;
ConfigReader::~ConfigReader() = default;

Result<ConfigReader> ConfigReader::open(const std::string& path) {
  try {
    auto state = std::make_unique<State>();
    state->name = path;
    state->table = toml::parse_file(path);
    leaf_keys(state->table, "", state->unread);
    state->present = state->unread;
    return ConfigReader(std::move(state));
  } catch (const toml::parse_error& e) {
    return fail(Code::kConfig, fmt::format("{}:{}: {}", path, e.source().begin.line, e.description()));
  }
}

Result<ConfigReader> ConfigReader::parse(std::string_view text, std::string name) {
  try {
    auto state = std::make_unique<State>();
    state->table = toml::parse(text, name);
    state->name = std::move(name);
    leaf_keys(state->table, "", state->unread);
    state->present = state->unread;
    return ConfigReader(std::move(state));
  } catch (const toml::parse_error& e) {
    return fail(Code::kConfig, fmt::format("{}:{}: {}", name, e.source().begin.line, e.description()));
  }
}

void ConfigReader::text(std::string_view key, std::string& to) {
  auto node = state_->take(key);
  if (!node) return;
  if (auto value = node.value_exact<std::string>())
    to = std::move(*value);
  else
    state_->fail_with(key, "must be a string");
}

void ConfigReader::flag(std::string_view key, bool& to) {
  auto node = state_->take(key);
  if (!node) return;
  if (auto value = node.value_exact<bool>())
    to = *value;
  else
    state_->fail_with(key, "must be true or false");
}

void ConfigReader::number(std::string_view key, std::uint64_t& to, std::uint64_t min, std::uint64_t max) {
  auto node = state_->take(key);
  if (!node) return;
  auto value = node.value_exact<std::int64_t>();
  if (!value || *value < 0 || static_cast<std::uint64_t>(*value) < min ||
      static_cast<std::uint64_t>(*value) > max)
    state_->fail_with(key, fmt::format("must be a whole number from {} to {}", min, max));
  else
    to = static_cast<std::uint64_t>(*value);
}

void ConfigReader::number(std::string_view key, std::uint32_t& to, std::uint32_t min, std::uint32_t max) {
  std::uint64_t wide = to;
  number(key, wide, std::uint64_t{min}, std::uint64_t{max});
  to = static_cast<std::uint32_t>(wide);
}

void ConfigReader::duration_ms(std::string_view key, std::chrono::milliseconds& to,
                               std::chrono::milliseconds min, std::chrono::milliseconds max) {
  std::uint64_t value = static_cast<std::uint64_t>(to.count());
  number(key, value, static_cast<std::uint64_t>(min.count()), static_cast<std::uint64_t>(max.count()));
  to = std::chrono::milliseconds(value);
}

void ConfigReader::list(std::string_view key, std::vector<std::string>& to) {
  auto node = state_->take(key);
  if (!node) return;
  const toml::array* array = node.as_array();
  std::vector<std::string> values;
  bool all_strings = array != nullptr;
  if (array != nullptr)
    for (auto&& item : *array) {
      auto value = item.value_exact<std::string>();
      all_strings = all_strings && value.has_value();
      if (value) values.push_back(std::move(*value));
    }
  if (all_strings)
    to = std::move(values);
  else
    state_->fail_with(key, "must be a list of strings");
}

void ConfigReader::required(std::string_view key) {
  if (!state_->present.contains(std::string(key))) state_->fail_with(key, "is missing");
}

Result<> ConfigReader::finish() {
  TRYV(std::move(state_->problem));
  if (state_->unread.empty()) return {};
  std::string keys;
  for (const std::string& key : state_->unread) keys += (keys.empty() ? "'" : ", '") + key + "'";
  return fail(Code::kConfig,
              fmt::format("{}: unknown key {} (see --print-config for those there are)", state_->name, keys));
}

void ConfigPrinter::line(std::string_view key, std::string_view value, std::string_view comment) {
  out_ += fmt::format("{} = {}  # {}\n", key, value, comment);
}
void ConfigPrinter::text(std::string_view key, std::string_view value, std::string_view comment) {
  line(key, quoted(value), comment);
}
void ConfigPrinter::flag(std::string_view key, bool value, std::string_view comment) {
  line(key, value ? "true" : "false", comment);
}
void ConfigPrinter::number(std::string_view key, std::uint64_t value, std::string_view comment) {
  line(key, std::to_string(value), comment);
}
void ConfigPrinter::list(std::string_view key, const std::vector<std::string>& values,
                         std::string_view comment) {
  std::string text = "[";
  for (const std::string& value : values) text += (text.size() > 1 ? ", " : "") + quoted(value);
  line(key, text + "]", comment);
}

}  // namespace cairn
