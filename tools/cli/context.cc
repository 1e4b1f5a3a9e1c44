#include "tools/cli/context.h"

#include <fmt/format.h>

#include <sstream>

namespace cairn::cli {

Result<ClientOptions> Context::client_options() const {
  TRY(ClientOptions options, client_options_from_environment());
  if (!meta.empty()) {
    options.meta.clear();
    std::istringstream list(meta);
    for (std::string address; std::getline(list, address, ',');) options.meta.push_back(address);
  }
  options.timeout = std::chrono::seconds(timeout_s);
  return options;
}

Result<std::unique_ptr<Client>> Context::connect() const {
  TRY(ClientOptions options, client_options());
  std::string tried;
  for (const std::string& address : options.meta) tried += (tried.empty() ? "" : ", ") + address;
  options.timeout = std::min(options.timeout, std::chrono::milliseconds(10'000));  // to answer a wrong address soon
  ClientOptions wanted = options;
  wanted.timeout = std::chrono::seconds(timeout_s);
  auto client = Client::connect(std::move(wanted));
  if (!client && (client.error().code() == Code::kUnavailable || client.error().code() == Code::kTimeout))
    return fail(client.error().code(),
                fmt::format("no metadata server at {} ({}). Is the cluster up? Try 'cairn up', or name another address "
                            "with --meta or CAIRN_META",
                            tried, client.error().message()));
  return client;
}

}  // namespace cairn::cli
