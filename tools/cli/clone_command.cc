// cairn clone.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/cli/clone_tree.h"
#include "tools/cli/context.h"
#include "tools/cli/progress.h"

namespace cairn::cli {

void add_clone_command(CLI::App& app, Context& context) {
  auto source = std::make_shared<std::string>();
  auto target = std::make_shared<std::string>();
  auto recursive = std::make_shared<bool>(false);
  CLI::App* clone = app.add_subcommand(
      "clone", "Copy a file or a tree below a mount at once: bytes are shared until one side changes them");
  clone->add_option("SRC", *source, "a file, or with -r a directory")->required();
  clone->add_option("DST", *target, "its new name, which must not exist")->required();
  clone->add_flag("-r,--recursive", *recursive, "a directory with all that is in it");
  clone->callback([&context, source, target, recursive] {
    context.run = [&context, source, target, recursive]() -> Result<> {
      Progress progress("cloning");
      CloneOptions options;
      options.recursive = *recursive;
      options.progress = [&](const Cloned& done) { progress.update(done.bytes, 0); };
      TRY(const Cloned done, clone_tree(*source, *target, options));
      progress.finish();
      if (context.json) {
        const nlohmann::json out = {{"files", done.files},
                                    {"directories", done.directories},
                                    {"others", done.others},
                                    {"bytes", done.bytes}};
        fmt::print("{}\n", out.dump());
      } else if (*recursive) {
        fmt::print("{} files, {} directories, {} others: {}\n", done.files, done.directories, done.others,
                   human_bytes(done.bytes));
      }
      return {};
    };
  });
}

}  // namespace cairn::cli
