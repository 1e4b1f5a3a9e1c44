// coherence_check COMMAND [OPTIONS] DIR...: checks that several mounts of one file system are one file
// system. Each DIR is the same directory, seen through another mount; the same DIR several times proves the
// check.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "crash.h"
#include "races.h"
#include "script.h"

namespace {

int usage() {
  std::fprintf(stderr,
               "coherence_check script [--seed N] [--ops N | --seconds S] [--shrink] DIR...\n"
               "    one random stream of operations over all DIRs, compared with a model step by step\n"
               "coherence_check races [--seed N] [--seconds S] [--threads N] [--may-fail] [--only "
               "WORKLOAD]... DIR...\n"
               "    threads on all DIRs at once, whose histories are checked\n"
               "coherence_check crash-work [--seed N] DIR LOG\n"
               "    changes DIR until its mount dies, and notes in LOG what was done\n"
               "coherence_check crash-check [--seed N] DIR LOG\n"
               "    DIR holds what a prefix of these changes leaves, and all that was synced\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return usage();
  const std::string command = argv[1];
  coherence::ScriptOptions script;
  coherence::RaceOptions races;
  std::vector<std::string> dirs;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    auto number = [&] { return i + 1 < argc ? argv[++i] : "0"; };
    if (word == "--seed") {
      script.seed = races.seed = std::strtoull(number(), nullptr, 10);
    } else if (word == "--ops") {
      script.ops = std::strtoull(number(), nullptr, 10);
    } else if (word == "--seconds") {
      script.seconds = races.seconds = std::strtod(number(), nullptr);
    } else if (word == "--threads") {
      races.threads = std::atoi(number());
    } else if (word == "--only") {
      races.only.push_back(number());
    } else if (word == "--may-fail") {
      races.may_fail = true;
    } else if (word == "--shrink") {
      script.shrink = true;
    } else if (word.starts_with("--")) {
      return usage();
    } else {
      dirs.push_back(word);
    }
  }
  if (dirs.empty()) return usage();
  if (command == "crash-work" && dirs.size() == 2)
    return coherence::crash_work(dirs[0], dirs[1], script.seed);
  if (command == "crash-check" && dirs.size() == 2)
    return coherence::crash_check(dirs[0], dirs[1], script.seed);
  script.mounts = races.mounts = dirs;
  if (command == "script") return coherence::run_script(script);
  if (command == "races") return coherence::run_races(races);
  return usage();
}
