// cairn up, down: a whole cluster on this machine, made of the ordinary server programs.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "fuse/mount.h"
#include "fuse/mount_table.h"
#include "tools/cli/cluster_folder.h"
#include "tools/cli/context.h"
#include "tools/cli/process.h"

namespace cairn::cli {
namespace {
namespace fs = std::filesystem;

bool is_mounted(const std::string& mountpoint) {
  auto found = fuse::find_mount(mountpoint);
  return found && found->has_value() && (*found)->type == fuse::kFsType;
}

// True once the metadata server answers and every chunkserver of the folder is up and placed.
Result<bool> serves(const ClientOptions& options, std::size_t chunkservers, std::string& waiting_for) {
  ClientOptions quick = options;
  quick.timeout = std::chrono::seconds(2);
  auto client = Client::connect(quick);
  if (!client) {
    waiting_for = "the metadata server: " + client.error().message();
    return false;
  }
  auto text = (*client)->status("status");
  if (!text) {
    waiting_for = "the metadata server: " + text.error().message();
    return false;
  }
  auto status = nlohmann::json::parse(*text, nullptr, false);
  std::size_t up = 0;
  for (const auto& server : status.value("servers", nlohmann::json::array()))
    up += server.value("state", "") == "up" ? 1 : 0;
  auto groups = status.value("groups", nlohmann::json::object());
  waiting_for = fmt::format("{} of {} chunkservers", up, chunkservers);
  if (up < chunkservers) return false;
  waiting_for = "the placement groups";
  return groups.value("total", 0) > 0 && groups.value("lost", 1) == 0;
}

Result<> wait_until_serving(const std::vector<Part>& parts, const ClientOptions& options) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  std::string waiting_for;
  for (;;) {
    for (const Part& part : parts)
      if (!running_pid(part.folder, part.program))
        return fail(Code::kUnavailable,
                    fmt::format("{} has stopped; the end of {}:\n{}", part.name,
                                (part.folder / "log").string(), log_tail(part.folder, 8)));
    TRY(bool ready, serves(options, parts.size() - 1, waiting_for));
    if (ready) return {};
    if (std::chrono::steady_clock::now() > end)
      return fail(Code::kTimeout,
                  fmt::format("the cluster does not serve after 60 s; still waiting for {}. Logs: {}/*/log",
                              waiting_for, parts[0].folder.parent_path().string()));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Result<> up(const Context& context, const UpOptions& options) {
  ClusterFolder folder(options.data);
  bool made = !folder.exists();
  if (made) TRYV(folder.create(options));
  TRY(fs::path programs, program_folder());
  std::vector<Part> parts = folder.parts();
  std::vector<std::string> started;
  for (const Part& part : parts) {
    if (running_pid(part.folder, part.program)) continue;
    TRYV(start_detached(part.folder, programs / part.program));
    started.push_back(part.name);
  }
  TRY(std::string address, folder.meta_address());
  Context here = context;
  here.meta = address;
  TRY(ClientOptions client, here.client_options());
  TRYV(wait_until_serving(parts, client));

  std::string mountpoint = options.mount;
  if (!mountpoint.empty()) {
    mountpoint = fs::absolute(mountpoint).lexically_normal().string();
    if (is_mounted(mountpoint)) {
      if (!context.json) fmt::print("{} is mounted already\n", mountpoint);
    } else {
      std::error_code made;  // an error shows when it is mounted
      fs::create_directory(mountpoint, made);
      TRYV(folder.set_mountpoint(mountpoint));
      fuse::MountOptions mount;
      mount.mountpoint = mountpoint;
      mount.client = client;
      mount.allow_other = ::geteuid() == 0;
      mount.supervised = true;
      mount.log_path = (folder.path() / "fuse/log").string();
      TRYV(fuse::start_mount_daemon(mount));
    }
  }
  if (context.json) {
    fmt::print("{}\n", nlohmann::json{{"meta", address},
                                      {"data", folder.path().string()},
                                      {"chunkservers", parts.size() - 1},
                                      {"started", started},
                                      {"mount", mountpoint}}
                           .dump());
    return {};
  }
  fmt::print(
      "{} cluster in {}: {}\n", made ? "new" : "the", folder.path().string(),
      started.empty() ? "everything was running" : fmt::format("started {}", fmt::join(started, ", ")));
  fmt::print("metadata server {}, {} chunkservers{}\n", address, parts.size() - 1,
             mountpoint.empty() ? "" : ", mounted at " + mountpoint);
  if (address != "127.0.0.1:7070") fmt::print("not the default address: export CAIRN_META={}\n", address);
  return {};
}

Result<> down(const Context& context, const fs::path& data, bool force) {
  ClusterFolder folder(data);
  if (!folder.exists())
    return fail(Code::kNotFound, fmt::format("there is no cluster in '{}'", folder.path().string()));
  std::string mountpoint = folder.mountpoint();
  if (!mountpoint.empty() && is_mounted(mountpoint))
    TRYV(fuse::unmount(mountpoint, force ? fuse::Unmount::kLazy : fuse::Unmount::kWait));
  // Chunkservers first, so that their clean stop is seen by the metadata server.
  std::vector<Part> parts = folder.parts();
  std::rotate(parts.begin(), parts.begin() + 1, parts.end());
  std::vector<std::string> stopped;
  for (const Part& part : parts) {
    std::optional<int> pid = running_pid(part.folder, part.program);
    if (!pid) continue;
    Result<> result = stop(part.folder, part.program, std::chrono::seconds(30));
    if (!result && !force) return result;
    if (!result) kill_now(*pid);
    stopped.push_back(part.name);
  }
  if (context.json)
    fmt::print("{}\n", nlohmann::json{{"data", folder.path().string()}, {"stopped", stopped}}.dump());
  else
    fmt::print("{}\n",
               stopped.empty() ? "nothing was running" : fmt::format("stopped {}", fmt::join(stopped, ", ")));
  return {};
}

}  // namespace

void add_up_commands(CLI::App& app, Context& context) {
  auto options = std::make_shared<UpOptions>();
  auto data = std::make_shared<std::string>(default_data_folder().string());
  auto force = std::make_shared<bool>(false);

  CLI::App* up_command = app.add_subcommand("up", "Start a cluster on this machine, in the background");
  up_command->footer(
      "Run again, it starts the parts that are not running. --chunkservers, --replicas, --port and the\n"
      "sizes count only when the cluster is made.");
  up_command->add_option("--data", *data, "folder of the cluster")->capture_default_str();
  up_command->add_option("--chunkservers", options->chunkservers, "how many")->capture_default_str();
  up_command->add_option("--replicas", options->replicas, "copies of every chunk")->capture_default_str();
  up_command->add_option("--port", options->port, "of the metadata server (default: 7070, or any free one)");
  up_command
      ->add_option("--capacity", options->capacity_bytes, "use at most so much of each disk, e.g. 10GiB")
      ->transform(CLI::AsSizeValue(false));
  up_command->add_option("--reserve", options->reserve_bytes, "of it, keep so much free of chunks")
      ->transform(CLI::AsSizeValue(false));
  up_command->add_option("--mount", options->mount, "also mount the file system here");
  up_command->callback([&context, options, data] {
    context.run = [&context, options, data] {
      options->data = *data;
      return up(context, *options);
    };
  });

  CLI::App* down_command =
      app.add_subcommand("down", "Unmount and stop a cluster on this machine; keeps its data");
  down_command->add_option("--data", *data, "folder of the cluster")->capture_default_str();
  down_command->add_flag("--force", *force, "kill what does not stop");
  down_command->callback([&context, data, force] {
    context.run = [&context, data, force] { return down(context, *data, *force); };
  });
}

}  // namespace cairn::cli
