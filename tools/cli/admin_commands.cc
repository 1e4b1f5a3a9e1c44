// cairn admin status, servers, groups, drain, undrain, forget.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "tools/cli/context.h"
#include "tools/cli/progress.h"

namespace cairn::cli {
namespace {

using Json = nlohmann::json;

Result<Json> fetch(Client& client, std::string_view what) {
  TRY(std::string text, client.status(what));
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded())
    return fail(Code::kProtocol, fmt::format("the metadata server's {} is no JSON", what));
  return json;
}

// 0 for what is absent or null (an ETA without a rate).
std::uint64_t number(const Json& json, const char* key) {
  auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<std::uint64_t>() : 0;
}

void print_servers(const Json& servers) {
  fmt::print("{:<18}{:<24}{:<10}{:>12}{:>12}\n", "server", "address", "state", "used", "of");
  for (const Json& server : servers) {
    fmt::print("{:<18}{:<24}{:<10}{:>12}{:>12}\n", server.value("id", "?"), server.value("address", "?"),
               server.value("state", "?"), human_bytes(number(server, "used_bytes")),
               human_bytes(number(server, "total_bytes")));
    for (const Json& target : server.value("targets", Json::array()))
      fmt::print("  disk {:<35}{:<10}{:>12}{:>12}  {} chunks, {} groups\n", target.value("id", "?"),
                 target.value("state", "?"), human_bytes(number(target, "used_bytes")),
                 human_bytes(number(target, "total_bytes")), number(target, "chunks"),
                 number(target, "groups"));
    if (number(server, "corrupt_found") > 0)
      fmt::print("  {} bad blocks found, {} repaired\n", number(server, "corrupt_found"),
                 number(server, "corrupt_repaired"));
  }
}

void print_status(const Json& status) {
  const Json& groups = status.at("groups");
  const Json& repair = status.at("repair");
  fmt::print("cluster {}  health {}\n", status.value("cluster_id", "?"), status.value("health", "?"));
  fmt::print("groups  {} in all, {} whole, {} degraded, {} of them at risk, {} lost\n",
             number(groups, "total"), number(groups, "whole"), number(groups, "degraded"),
             number(groups, "at_risk"), number(groups, "lost"));
  if (number(repair, "chunks_left") > 0) {
    fmt::print("repair  {} chunks ({}) to copy, ", number(repair, "chunks_left"),
               human_bytes(number(repair, "bytes_left")));
    if (number(repair, "bytes_per_second") > 0)
      fmt::print("{}/s, about {} left\n", human_bytes(number(repair, "bytes_per_second")),
                 human_seconds(number(repair, "eta_seconds")));
    else
      fmt::print("none is moving now\n");
  }
  fmt::print("stored  {} files, {} objects; {} clients\n", number(status, "files"), number(status, "objects"),
             number(status, "sessions"));
  for (const Json& note : status.value("notes", Json::array()))
    fmt::print("note    {}\n", note.get<std::string>());
  fmt::print("\n");
  print_servers(status.at("servers"));
}

// Polls until the health asked for; shows the repair's progress on a terminal.
Result<Json> wait_for_health(const Context& context, const std::string& wanted, bool show) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(context.timeout_s);
  Progress progress("repair");
  // More may be found while it goes on (writes to groups that are a copy short): the bar never goes back.
  std::uint64_t most_left = 0, done = 0;
  std::unique_ptr<Client> client;
  std::string last = "the metadata server did not answer";
  for (;;) {
    if (!client) {
      auto connected = context.connect();
      if (connected)
        client = std::move(*connected);
      else
        last = connected.error().message();
    }
    if (client) {
      auto status = fetch(*client, "status");
      if (status) {
        if (status->value("health", "") == wanted) return status;
        last = fmt::format("health is {}", status->value("health", "?"));
        std::uint64_t left = number(status->at("repair"), "bytes_left");
        most_left = std::max(most_left, left);
        done = std::max(done, most_left - left);
        if (show && most_left > 0) progress.update(done, most_left);
      } else {
        last = status.error().message();
      }
    }
    if (std::chrono::steady_clock::now() > end)
      return fail(Code::kTimeout, fmt::format("not '{}' after {} s: {}", wanted, context.timeout_s, last));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

Result<> status(const Context& context, const std::string& wanted) {
  Json json;
  if (wanted.empty()) {
    TRY(auto client, context.connect());
    TRY(json, fetch(*client, "status"));
  } else {
    TRY(json, wait_for_health(context, wanted, !context.json));
  }
  if (context.json)
    fmt::print("{}\n", json.dump());
  else
    print_status(json);
  return {};
}

Result<> servers(const Context& context) {
  TRY(auto client, context.connect());
  TRY(Json json, fetch(*client, "servers"));
  if (context.json)
    fmt::print("{}\n", json.dump());
  else
    print_servers(json.at("servers"));
  return {};
}

Result<> sessions(const Context& context) {
  TRY(auto client, context.connect());
  TRY(Json json, fetch(*client, "sessions"));
  if (context.json) {
    fmt::print("{}\n", json.dump());
    return {};
  }
  fmt::print("{:<18}{:<24}{:<10}{:<10}{}\n", "session", "address", "state", "silent", "name");
  for (const Json& session : json.at("sessions"))
    fmt::print("{:<18}{:<24}{:<10}{:<10}{}\n", session.value("id", "?"), session.value("address", "?"),
               session.value("state", "?"), human_seconds(number(session, "silent_seconds")),
               session.value("name", "?"));
  return {};
}

Result<> groups(const Context& context) {
  TRY(auto client, context.connect());
  TRY(Json json, fetch(*client, "groups"));
  if (context.json) {
    fmt::print("{}\n", json.dump());
    return {};
  }
  fmt::print("{:<10}{:<18}{:<10}{}\n", "group", "epoch", "state", "members, head first (* in sync)");
  for (const Json& group : json.at("groups")) {
    std::string members;
    for (const Json& member : group.value("members", Json::array()))
      members += fmt::format("{}{} ", member.value("server", "?"), member.value("in_sync", false) ? "*" : "");
    fmt::print("{:<10}{:<18}{:<10}{}\n", group.value("id", "?"), group.value("epoch", "?"),
               group.value("state", "?"), members);
  }
  return {};
}

}  // namespace

void add_admin_commands(CLI::App& app, Context& context) {
  struct Options {
    std::string wait, server;
    bool accept_loss = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* admin = app.add_subcommand("admin", "See and steer the cluster");
  admin->require_subcommand(1);

  CLI::App* status_command =
      admin->add_subcommand("status", "Health, groups, repair and servers at a glance");
  status_command
      ->add_option("--wait", options->wait, "return when health is this (at most --timeout seconds)")
      ->check(CLI::IsMember({"ok", "draining", "degraded", "at_risk", "data_lost"}));
  status_command->callback(
      [&context, options] { context.run = [&context, options] { return status(context, options->wait); }; });

  admin->add_subcommand("servers", "Every chunkserver and its disks")->callback([&context] {
    context.run = [&context] { return servers(context); };
  });
  admin->add_subcommand("groups", "Every placement group: members, in-sync set, epoch")->callback([&context] {
    context.run = [&context] { return groups(context); };
  });

  admin->add_subcommand("sessions", "Every client: mounts and programs that hold leases")
      ->callback([&context] { context.run = [&context] { return sessions(context); }; });

  struct Verb {
    const char* name;
    const char* help;
    Client::AdminCommand command;
  };
  constexpr std::array kVerbs = {
      Verb{"drain", "Move everything off a server, keeping all copies meanwhile",
           Client::AdminCommand::kDrain},
      Verb{"undrain", "Take a drain back", Client::AdminCommand::kUndrain},
      Verb{"forget", "Give up a dead server for good", Client::AdminCommand::kForget}};
  for (const Verb& verb : kVerbs) {
    CLI::App* command = admin->add_subcommand(verb.name, verb.help);
    command->add_option("SERVER", options->server, "server id as 'admin servers' shows it")->required();
    if (verb.command == Client::AdminCommand::kForget)
      command->add_flag("--accept-loss", options->accept_loss, "even if it holds the last copy of something");
    command->callback([&context, options, code = verb.command] {
      context.run = [&context, options, code]() -> Result<> {
        TRY(std::uint64_t server, parse_hex64(options->server));
        TRY(auto client, context.connect());
        return client->admin(code, ServerId(server),
                             options->accept_loss ? Client::Loss::kAccept : Client::Loss::kRefuse);
      };
    });
  }
}

}  // namespace cairn::cli
