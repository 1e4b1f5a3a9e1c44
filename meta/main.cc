// cairn-meta: the metadata server.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "meta/server.h"
#include "meta/store_format.h"
#include "store/base/log.h"

namespace cairn::meta {
namespace {

int refuse(const Error& error) {
  log_error("meta_not_started", "error={}", log_quote(error.to_string()));
  std::fprintf(stderr, "cairn-meta: %s\n", error.to_string().c_str());
  return 1;
}

// The journal failed: what was accepted can't be told from what was not. Ends at once; a restart sorts it
// out. Or the metadata went back in time: then nothing more may be served from it.
void die(const Error& error) {
  if (error.code() == Code::kNeedsOperator) {
    log_error("meta_stopped_for_good", "error={}", log_quote(error.to_string()));
    std::fprintf(stderr, "cairn-meta: stopping at once: %s\n", error.to_string().c_str());
    std::_Exit(3);
  }
  log_error("journal_failed", "error={}", log_quote(error.to_string()));
  std::fprintf(stderr, "cairn-meta: the journal failed, stopping at once: %s\n", error.to_string().c_str());
  std::_Exit(3);
}

int run(const MetaConfig& config) {
  if (auto opened = log_open(config.log_file); !opened) return refuse(opened.error());
  log_set_level(parse_log_level(config.log_level).value_or(LogLevel::kInfo));

  // Blocked in every thread, taken by sigwait below.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  SystemClock clock;
  SystemRng rng;
  rpc::TcpTransport transport;
  auto server = MetaServer::start(config, {clock, rng, transport, die, machine_boot_id});
  if (!server) return refuse(server.error());
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    if (signal == SIGHUP) {
      if (auto reopened = log_reopen(); !reopened)
        log_error("log_not_reopened", "error={}", reopened.error().to_string());
      continue;
    }
    log_info("meta_stopping", "signal={}", signal);
    auto stopped = (*server)->stop();
    if (stopped) return 0;
    log_error("meta_stop_failed", "error={}", log_quote(stopped.error().to_string()));
    return 1;
  }
}

}  // namespace
}  // namespace cairn::meta

int main(int argc, char** argv) {
  CLI::App app("The metadata server of Cairn.", "cairn-meta");
  app.footer(
      "Signals: SIGTERM, SIGINT stop in good order; SIGHUP reopens the log file.\nExit codes: 0 done, 1 "
      "failed, 2 usage, 3 the journal failed, or the metadata "
      "went back in time.");
  std::string path;
  bool print = false;
  bool init = false;
  app.add_option("--config", path, "configuration file (TOML)")->required()->type_name("FILE");
  app.add_flag("--print-config", print, "show the effective configuration and exit");
  app.add_flag("--init", init, "format data_dir if it is empty (as init = true)");
  bool salvage = false;
  app.add_flag(
      "--salvage", salvage,
      "start although the metadata was refused as damaged or gone back in time, with what is left of "
      "it; refused again when a chunkserver remembers more");
  app.set_version_flag("--version", "cairn-meta 0.1.0");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  auto config = cairn::meta::read_meta_config(path);
  if (!config) {
    std::fprintf(stderr, "cairn-meta: %s\n", config.error().to_string().c_str());
    return 2;
  }
  config->init = config->init || init;
  config->salvage = salvage;
  if (print) {
    std::fputs(cairn::meta::print_meta_config(*config).c_str(), stdout);
    return 0;
  }
  return cairn::meta::run(*config);
}
