// The `cairn` program: see `cairn --help`.
#include <fmt/format.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "store/base/log.h"
#include "tools/cli/context.h"
#include "tools/cli/mount_options.h"

namespace {

constexpr std::string_view kFooter = R"(
Examples:
  cairn up --mount /mnt/cairn        a whole cluster on this machine, in the background
  cairn put results.tar --id r/42    store a file as an immutable object
  cairn get r/42 copy.tar            and read it back
  cairn admin status --wait ok       wait until every byte has all its copies

The metadata server's address: --meta, else CAIRN_META, else 127.0.0.1:7070.
Exit codes: 0 done, 1 failed, 2 usage.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace cairn;
  ::signal(SIGPIPE, SIG_IGN);
  log_set_level(LogLevel::kWarn);

  cli::Context context;
  CLI::App app("Cairn: a distributed object and file store", "cairn");
  app.footer(std::string(kFooter));
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", "cairn " CAIRN_VERSION);
  app.add_option("--meta", context.meta, "metadata server: HOST:PORT[,HOST:PORT]")->type_name("ADDRESS");
  app.add_flag("--json", context.json, "machine-readable output");
  app.add_option("--timeout", context.timeout_s, "seconds one operation may take")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  cli::add_up_commands(app, context);
  cli::add_object_commands(app, context);
  cli::add_mount_commands(app, context);
  cli::add_clone_command(app, context);
  cli::add_quota_commands(app, context);
  cli::add_trash_commands(app, context);
  cli::add_admin_commands(app, context);

  // mount(8) calls us by this name for `mount -t cairn` and for fstab.
  const bool helper = std::filesystem::path(argv[0]).filename() == "mount.cairn";
  try {
    if (helper) {
      auto arguments = cli::arguments_of_helper({argv + 1, argv + argc});
      if (!arguments) {
        fmt::print(stderr, "{}\n", arguments.error().message());
        return cli::kUsage;
      }
      if (arguments->empty()) return cli::kDone;
      std::reverse(arguments->begin(), arguments->end());  // as CLI11 wants them
      app.parse(*arguments);
    } else {
      app.parse(argc, argv);
    }
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    const auto unknown = app.remaining(true);
    if (argc == 1)
      fmt::print("{}", app.help());
    else if (e.get_name() == "RequiredError" && !unknown.empty())
      fmt::print(stderr, "cairn: unknown command '{}'. 'cairn --help' lists what there is.\n",
                 unknown.front());
    else
      app.exit(e);
    return cli::kUsage;
  }
  Result<> result = context.run();
  if (result) return cli::kDone;
  fmt::print(stderr, "cairn: {}\n", result.error().message());
  return result.error().code() == Code::kConfig ? cli::kUsage : cli::kFailed;
}
