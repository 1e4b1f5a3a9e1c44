// cairn undelete, trash list, trash empty, trash retention.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>

#include "client/directory_admin.h"
#include "tools/cli/cluster_path.h"
#include "tools/cli/context.h"
#include "tools/cli/progress.h"

namespace cairn::cli {
namespace {

using Json = nlohmann::json;

std::string utc_text(std::int64_t ns) {
  const std::time_t seconds = ns / 1'000'000'000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// "2026-11-23T18:00:00", "2026-11-23 18:00": local time, or UTC with a Z at the end.
Result<std::int64_t> parse_time(const std::string& text) {
  for (const char* format : {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"}) {
    std::tm parts{};
    parts.tm_isdst = -1;
    const char* end = ::strptime(text.c_str(), format, &parts);
    if (end == nullptr) continue;
    if (std::string_view(end) == "Z") return std::int64_t{::timegm(&parts)} * 1'000'000'000;
    if (*end == '\0') return std::int64_t{::mktime(&parts)} * 1'000'000'000;
  }
  return fail(Code::kConfig, fmt::format("'{}' is no time: give it as 2026-11-23T18:00:00 (local) or "
                                         "2026-11-23T17:00:00Z",
                                         text));
}

std::string id_text(const TrashEntry& entry) {
  return fmt::format("{:x}", entry.inode.value());
}

Json entry_json(const TrashEntry& entry) {
  return {{"id", id_text(entry)},
          {"path", entry.path.empty() ? Json(nullptr) : Json(entry.path)},
          {"type", entry.is_directory() ? "directory" : "file"},
          {"size", entry.attr.size},
          {"uid", entry.attr.uid},
          {"deleted", utc_text(entry.deleted_ns)},
          {"expires", utc_text(entry.expires_ns)},
          {"deleted_by_uid", entry.by},
          {"deleted_on", entry.client}};
}

void print_entries(const Context& context, const std::vector<TrashEntry>& entries) {
  if (context.json) {
    Json all = Json::array();
    for (const TrashEntry& entry : entries) all.push_back(entry_json(entry));
    fmt::print("{}\n", all.dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  if (entries.empty()) return;
  fmt::print("{:<18}{:<22}{:>12}  {:<22}{}\n", "id", "deleted", "size", "by", "path");
  for (const TrashEntry& entry : entries)
    fmt::print("{:<18}{:<22}{:>12}  {:<22}{}\n", id_text(entry), utc_text(entry.deleted_ns),
               entry.is_directory() ? "-" : human_bytes(entry.attr.size),
               fmt::format("{}@{}", entry.by, entry.client.substr(0, entry.client.find(':'))),
               entry.path.empty() ? "(" + entry.name + ", of a directory that is gone)" : entry.path);
}

struct UndeleteOptions {
  std::string path, to, at, id;
  bool list = false, recursive = false;
};

Result<> undelete_tree(const Context& context, Client& client, const std::string& path,
                       const std::string& to) {
  TRY(const auto restored, client.directories().undelete_tree(path, to));
  if (context.json) {
    Json refused = Json::array();
    for (const Error& error : restored.refused) refused.push_back(error.message());
    fmt::print("{}\n", Json{{"restored", restored.paths}, {"refused", refused}}.dump(
                           -1, ' ', false, Json::error_handler_t::replace));
  } else {
    for (const std::string& one : restored.paths) fmt::print("{}\n", one);
    for (const Error& error : restored.refused) fmt::print(stderr, "cairn: {}\n", error.message());
  }
  if (restored.paths.empty() && restored.refused.empty())
    return fail(Code::kNotFound, fmt::format("{}: nothing that was deleted below it is in the trash", path));
  if (!restored.refused.empty())
    return fail(restored.refused.front().code(),
                fmt::format("{} of {} files were not restored", restored.refused.size(),
                            restored.refused.size() + restored.paths.size()));
  return {};
}

// The version that was there at a time, was named, or is the newest.
Result<TrashEntry> chosen(std::vector<TrashEntry> versions, const UndeleteOptions& options) {
  std::erase_if(versions, [](const TrashEntry& entry) { return entry.is_directory(); });
  if (!options.id.empty()) {
    for (TrashEntry& entry : versions)
      if (id_text(entry) == options.id) return std::move(entry);
    return fail(Code::kNotFound,
                fmt::format("{}: no version '{}' is in the trash", options.path, options.id));
  }
  if (!options.at.empty()) {
    TRY(const std::int64_t at, parse_time(options.at));
    for (TrashEntry& entry : versions)
      if (entry.deleted_ns >= at) return std::move(entry);
    return fail(Code::kNotFound,
                fmt::format("{}: nothing in the trash was deleted at or after {}", options.path, options.at));
  }
  if (versions.empty())
    return fail(Code::kNotFound, fmt::format("{}: no such file is in the trash", options.path));
  return std::move(versions.back());
}

Result<> undelete(Context& context, const UndeleteOptions& options) {
  if (!options.at.empty() && !options.id.empty())
    return fail(Code::kConfig, "undelete: give --at or --id, not both");
  if (options.recursive && (!options.at.empty() || !options.id.empty()))
    return fail(Code::kConfig, "undelete -r restores the newest of each file: no --at, no --id");
  TRY(const std::string path, context.resolve(options.path));
  std::string to = path;
  if (!options.to.empty()) {
    TRY(to, context.resolve(options.to));
  }
  TRY(auto client, context.connect());
  DirectoryAdmin& admin = client->directories();
  if (options.list) {
    TRY(const auto entries, options.recursive ? admin.trash(path) : admin.versions(path));
    print_entries(context, entries);
    return {};
  }
  if (options.recursive) return undelete_tree(context, *client, path, to);
  TRY(auto versions, admin.versions(path));
  const bool directory = !versions.empty() && std::ranges::all_of(versions, &TrashEntry::is_directory);
  if (directory)
    return fail(Code::kIsDirectory, fmt::format("{} was a directory: 'cairn undelete -r' restores what was "
                                                "deleted below it",
                                                options.path));
  TRY(const TrashEntry entry, chosen(std::move(versions), options));
  auto done = admin.undelete(entry, to);
  if (!done && done.error().code() == Code::kExists)
    return fail(Code::kExists, fmt::format("{} exists: name another place with --to", to));
  if (!done && done.error().code() == Code::kNotFound)
    return fail(Code::kNotFound, done.error().message() +
                                     ". If its directory was removed, 'cairn undelete -r' "
                                     "the directory, or name another place with --to");
  if (!done) return done;
  if (context.json)
    fmt::print("{}\n", Json{{"restored", Json::array({to})}, {"refused", Json::array()}}.dump(
                           -1, ' ', false, Json::error_handler_t::replace));
  else
    fmt::print("{}\n", to);
  return {};
}

Result<> trash_list(Context& context, const std::string& given) {
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  TRY(const auto entries, client->directories().trash(path));
  print_entries(context, entries);
  return {};
}

Result<> trash_empty(Context& context, const std::string& given, bool yes) {
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  TRY(const auto entries, client->directories().trash(path));
  std::uint64_t bytes = 0;
  for (const TrashEntry& entry : entries) bytes += entry.attr.size;
  if (!yes) {
    fmt::print(stderr,
               "{} deleted files and directories of {} below {} cannot be restored afterwards. Go on? [y/N] ",
               entries.size(), human_bytes(bytes), path);
    std::string answer;
    if (!std::getline(std::cin, answer) || (answer != "y" && answer != "yes"))
      return fail(Code::kCancelled, "nothing was removed: answer y, or give --yes");
  }
  TRY(const std::uint64_t removed, client->directories().empty_trash(entries));
  if (context.json)
    fmt::print("{}\n", Json{{"removed", removed}}.dump());
  else
    fmt::print("{} removed\n", removed);
  return {};
}

std::string retention_text(std::int64_t ns) {
  const std::int64_t seconds = ns / 1'000'000'000;
  for (const auto& [unit, name] : {std::pair{86400, "d"}, std::pair{3600, "h"}, std::pair{60, "m"}})
    if (seconds != 0 && seconds % unit == 0) return fmt::format("{}{}", seconds / unit, name);
  return fmt::format("{}s", seconds);
}

Result<> trash_retention(Context& context, const std::string& given, const std::string& time) {
  std::int64_t wanted = -1;
  if (!time.empty() && time != "default") {
    TRY(wanted, parse_duration(time));
  }
  TRY(const std::string path, context.resolve(given));
  TRY(auto client, context.connect());
  if (!time.empty()) return client->directories().set_retention(path, wanted);
  TRY(const Retention found, client->directories().retention(path));
  if (context.json)
    fmt::print("{}\n", Json{{"path", path},
                            {"own_seconds", found.own_ns < 0 ? Json(nullptr) : Json(found.own_ns / 1e9)},
                            {"seconds", found.in_force_ns / 1e9}}
                           .dump(-1, ' ', false, Json::error_handler_t::replace));
  else
    fmt::print("{}{}\n", retention_text(found.in_force_ns), found.own_ns < 0 ? " (inherited)" : "");
  return {};
}

}  // namespace

void add_trash_commands(CLI::App& app, Context& context) {
  struct Options {
    UndeleteOptions undelete;
    std::string path = "/", time;
    bool yes = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* undelete_command = app.add_subcommand("undelete", "Restore a deleted file from the trash");
  UndeleteOptions& wanted = options->undelete;
  undelete_command->add_option("PATH", wanted.path, "that it had: below a mount, or in Cairn")->required();
  undelete_command->add_flag("--list", wanted.list, "show the versions that there are");
  undelete_command->add_option("--at", wanted.at,
                               "the version that was there at this time (default: newest)");
  undelete_command->add_option("--id", wanted.id, "the version that --list shows so");
  undelete_command->add_option("--to", wanted.to, "restore it under this path");
  undelete_command->add_flag("-r,--recursive", wanted.recursive,
                             "everything that was deleted below PATH, the newest of each");
  undelete_command->callback([&context, options] {
    context.run = [&context, options] { return undelete(context, options->undelete); };
  });

  CLI::App* trash = app.add_subcommand("trash", "What was deleted and may be restored");
  trash->require_subcommand(1);
  CLI::App* list_command = trash->add_subcommand("list", "Everything in the trash");
  list_command->add_option("PATH", options->path, "only what was deleted there or below");
  list_command->callback([&context, options] {
    context.run = [&context, options] { return trash_list(context, options->path); };
  });
  CLI::App* empty_command = trash->add_subcommand("empty", "Remove it for good");
  empty_command->add_option("PATH", options->path, "only what was deleted there or below");
  empty_command->add_flag("--yes", options->yes, "do not ask");
  empty_command->callback([&context, options] {
    context.run = [&context, options] { return trash_empty(context, options->path, options->yes); };
  });
  CLI::App* retention_command =
      trash->add_subcommand("retention", "How long what is deleted below a directory is kept");
  retention_command->add_option("PATH", options->path, "a directory below a mount, or its path in Cairn")
      ->required();
  retention_command->add_option("TIME", options->time,
                                "such as 7d or 12h; 0: nothing is kept; default: as the directory above");
  retention_command->callback([&context, options] {
    context.run = [&context, options] { return trash_retention(context, options->path, options->time); };
  });
}

}  // namespace cairn::cli
