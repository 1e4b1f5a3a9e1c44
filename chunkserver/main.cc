// cairn-chunkserver: keeps chunks on the disks of one machine.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <thread>

#include "chunkserver/bootstrap.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

// SIGTERM and SIGINT ask to stop, SIGHUP reopens the log. Signals are blocked in every other thread.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    thread_ = std::thread([this] { listen(); });
  }
  ~Signals() {
    quit_ = true;
    pthread_kill(thread_.native_handle(), SIGUSR2);
    thread_.join();
  }
  const std::atomic<bool>& stop() const { return stop_; }
  void ask_to_stop() {
    std::lock_guard lock(mutex_);
    stop_ = true;
    stopped_.notify_all();
  }
  void wait_for_stop() {
    std::unique_lock lock(mutex_);
    stopped_.wait(lock, [&] { return stop_.load(); });
  }

 private:
  void listen() {
    while (!quit_) {
      int signal = 0;
      if (sigwait(&set_, &signal) != 0 || quit_) continue;
      if (signal == SIGHUP) {
        if (auto reopened = log_reopen(); !reopened)
          log_error("log_not_reopened", "error={}", log_quote(reopened.error().message()));
        continue;
      }
      ask_to_stop();
    }
  }

  sigset_t set_;
  std::atomic<bool> quit_{false};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable stopped_;
  std::thread thread_;
};

Result<> serve(const ChunkserverConfig& config) {
  TRY(const LogLevel level, parse_log_level(config.log_level));
  log_set_level(level);
  TRYV(log_open(config.log_file));
  Signals signals;
  SystemClock clock;
  SystemRng rng;
  disk::PosixDisk disk;
  rpc::TcpTransport transport;
  rpc::Runtime runtime(clock, config.io_threads, "io");
  auto targets = open_targets(runtime, transport, disk, config, signals.stop());
  if (!targets && targets.error().code() == Code::kCancelled) return {};
  if (!targets) return fail(std::move(targets.error()));
  Result<> outcome;  // written before the stop is asked for, read after it
  auto give_up = [&](const Error& why) {
    outcome = fail(why);
    signals.ask_to_stop();
  };
  TRY(auto server, Chunkserver::start(runtime, transport, rng, config, std::move(*targets), give_up));
  signals.wait_for_stop();
  log_info("stopping");
  server->stop();
  return outcome;
}

}  // namespace
}  // namespace cairn::chunkserver

int main(int argc, char** argv) {
  CLI::App app(
      "Cairn's chunkserver: keeps chunks of files and objects on the disks of this machine, replicated with "
      "other\n"
      "chunkservers. SIGTERM stops it in good order, SIGHUP reopens the log.");
  app.set_version_flag("--version", std::string("cairn-chunkserver 0.1.0"));
  std::string path;
  bool print = false;
  app.add_option("--config", path, "TOML file; an unknown key is an error")->required();
  app.add_flag("--print-config", print, "print the configuration in effect, with comments, and exit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  auto config = cairn::chunkserver::ChunkserverConfig::load(path);
  if (!config) {
    std::cerr << "cairn-chunkserver: " << config.error().message() << "\n";
    return 2;
  }
  if (print) {
    std::cout << config->print();
    return 0;
  }
  if (auto served = cairn::chunkserver::serve(*config); !served) {
    cairn::log_error("failed", "error={}", cairn::log_quote(served.error().to_string()));
    std::cerr << "cairn-chunkserver: " << served.error().message() << "\n";
    return 1;
  }
  return 0;
}
