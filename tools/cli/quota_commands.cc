// cairn quota set, get, list, remove.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/directory_admin.h"
#include "tools/cli/cluster_path.h"
#include "tools/cli/context.h"
#include "tools/cli/progress.h"

namespace cairn::cli {
namespace {

using Json = nlohmann::json;

std::string limit_text(std::uint64_t limit, bool bytes) {
  if (limit == 0) return "-";
  return bytes ? human_bytes(limit) : std::to_string(limit);
}

Json quota_json(const Quota& quota) {
  const auto limit = [](std::uint64_t value) { return value == 0 ? Json(nullptr) : Json(value); };
  return {{"path", quota.path},
          {"bytes_max", limit(quota.bytes_max)},
          {"inodes_max", limit(quota.inodes_max)},
          {"bytes", quota.bytes},
          {"inodes", quota.inodes}};
}

void print_quotas(const std::vector<Quota>& quotas) {
  fmt::print("{:>12}{:>12}{:>12}{:>12}  {}\n", "bytes", "limit", "inodes", "limit", "directory");
  for (const Quota& quota : quotas)
    fmt::print("{:>12}{:>12}{:>12}{:>12}  {}\n", human_bytes(quota.bytes), limit_text(quota.bytes_max, true),
               quota.inodes, limit_text(quota.inodes_max, false), quota.path);
}

Result<> quota_set(Context& context, const std::string& given, const std::string& bytes,
                   const std::string& inodes) {
  QuotaChange change;
  if (!bytes.empty()) {
    TRY(change.bytes, parse_bytes(bytes));
  }
  if (!inodes.empty()) {
    TRY(change.inodes, parse_bytes(inodes));
  }
  if (!change.bytes && !change.inodes)
    return fail(Code::kConfig, "quota set: give --bytes, --inodes or both");
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  return client->directories().set_quota(path, change);
}

Result<> quota_remove(Context& context, const std::string& given) {
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  return client->directories().set_quota(path, {0, 0});
}

Result<> quota_get(Context& context, const std::string& given) {
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  TRY(const Quota quota, client->directories().quota(path));
  if (context.json)
    fmt::print("{}\n", quota_json(quota).dump(-1, ' ', false, Json::error_handler_t::replace));
  else
    print_quotas({quota});
  return {};
}

Result<> quota_list(Context& context, const std::string& given) {
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  TRY(const auto quotas, client->directories().quotas(path));
  if (context.json) {
    Json all = Json::array();
    for (const Quota& quota : quotas) all.push_back(quota_json(quota));
    fmt::print("{}\n", all.dump(-1, ' ', false, Json::error_handler_t::replace));
  } else if (!quotas.empty()) {
    print_quotas(quotas);
  }
  return {};
}

}  // namespace

void add_quota_commands(CLI::App& app, Context& context) {
  struct Options {
    std::string path, bytes, inodes, list_path = "/";
  };
  auto options = std::make_shared<Options>();
  CLI::App* quota = app.add_subcommand("quota", "Limit what directories may hold");
  quota->require_subcommand(1);
  constexpr const char* kPath = "a directory below a mount, or its path in Cairn";

  CLI::App* set_command = quota->add_subcommand("set", "Limit the bytes or inodes below a directory");
  set_command->add_option("PATH", options->path, kPath)->required();
  set_command->add_option("--bytes", options->bytes, "such as 10G; 0: no limit");
  set_command->add_option("--inodes", options->inodes, "files and directories; 0: no limit");
  set_command->callback([&context, options] {
    context.run = [&context, options] {
      return quota_set(context, options->path, options->bytes, options->inodes);
    };
  });

  CLI::App* get_command = quota->add_subcommand("get", "What is below a directory, and its limits");
  get_command->add_option("PATH", options->path, kPath)->required();
  get_command->callback([&context, options] {
    context.run = [&context, options] { return quota_get(context, options->path); };
  });

  CLI::App* list_command = quota->add_subcommand("list", "Every directory with a quota");
  list_command->add_option("PATH", options->list_path, "only at or below this directory");
  list_command->callback([&context, options] {
    context.run = [&context, options] { return quota_list(context, options->list_path); };
  });

  CLI::App* remove_command = quota->add_subcommand("remove", "Take a directory's limits away");
  remove_command->add_option("PATH", options->path, kPath)->required();
  remove_command->callback([&context, options] {
    context.run = [&context, options] { return quota_remove(context, options->path); };
  });
}

}  // namespace cairn::cli
