// What all commands of `cairn` share: global options, connecting, and how results and errors are shown.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "client/client.h"
#include "store/base/result.h"

namespace CLI {
class App;
}

namespace cairn::cli {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Context {
  std::string meta;  // --meta; empty: CAIRN_META, else the default address
  bool json = false;
  std::uint32_t timeout_s = 60;
  std::function<Result<>()> run;  // set by the command that was named

  Result<ClientOptions> client_options() const;
  // A path in the Cairn file system for what somebody typed (tools/cli/cluster_path.h). Below a mount, its
  // metadata server is the one to ask unless another was named.
  Result<std::string> resolve(const std::string& given);
  // The error names the address tried and what to do.
  Result<std::unique_ptr<Client>> connect() const;
};

// Each adds its commands to the program.
void add_up_commands(CLI::App& app, Context& context);
void add_object_commands(CLI::App& app, Context& context);
void add_mount_commands(CLI::App& app, Context& context);
void add_clone_command(CLI::App& app, Context& context);
void add_quota_commands(CLI::App& app, Context& context);
void add_trash_commands(CLI::App& app, Context& context);
void add_admin_commands(CLI::App& app, Context& context);

}  // namespace cairn::cli
