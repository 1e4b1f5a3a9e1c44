// cairn mount, umount.
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "fuse/mount.h"
#include "tools/cli/context.h"
#include "tools/cli/mount_options.h"

namespace cairn::cli {

void add_mount_commands(CLI::App& app, Context& context) {
  auto options = std::make_shared<fuse::MountOptions>();
  auto lazy = std::make_shared<bool>(false);
  auto list = std::make_shared<std::string>();
  options->allow_other = ::geteuid() == 0;

  CLI::App* mount = app.add_subcommand("mount", "Mount the file system; returns when it serves");
  mount->add_option("DIR", options->mountpoint, "an empty directory")->required();
  mount->add_flag("--read-only,--ro", options->read_only, "refuse every change");
  mount->add_flag("--foreground,-f", options->foreground, "stay in the foreground until unmounted or Ctrl-C");
  mount->add_flag("--allow-other,!--no-allow-other", options->allow_other,
                  "other users may use it (default for root)");
  mount->add_option("--log", options->log_path, "log file of the mount process (default: none)");
  mount->add_option("-o", *list, "options as in fstab: ro, noatime, memory=256M, timeout=60, ...")
      ->type_name("OPTIONS");
  mount->callback([&context, options, list] {
    context.run = [&context, options, list]() -> Result<> {
      TRY(options->client, context.client_options());
      TRYV(apply_mount_options(*list, *options));
      options->supervised = true;
      return options->foreground ? fuse::run_mount(*options) : fuse::start_mount_daemon(*options);
    };
  });

  CLI::App* umount = app.add_subcommand("umount", "Unmount; flushes what was written");
  umount->add_option("DIR", options->mountpoint, "the mount point")->required();
  umount->add_flag("--lazy", *lazy, "detach at once, even while in use");
  umount->callback([&context, options, lazy] {
    context.run = [options, lazy] {
      return fuse::unmount(options->mountpoint, *lazy ? fuse::Unmount::kLazy : fuse::Unmount::kWait);
    };
  });
}

}  // namespace cairn::cli
