#include "tools/cli/context.h"

#include <fmt/format.h>

#include <cstdlib>
#include <sstream>

#include "tools/cli/cluster_path.h"

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

Result<std::string> Context::resolve(const std::string& given) {
  TRY(ClusterPath found, cluster_path(given));
  if (meta.empty() && std::getenv("CAIRN_META") == nullptr) meta = found.meta;
  return std::move(found.path);
}

Result<std::unique_ptr<Client>> Context::connect() const {
  TRY(ClientOptions options, client_options());
  auto client = Client::connect(std::move(options));
  if (!client && (client.error().code() == Code::kUnavailable || client.error().code() == Code::kTimeout))
    return fail(client.error().code(),
                client.error().message() +
                    ". Is the cluster up? Try 'cairn up', or name another address with --meta or CAIRN_META");
  return client;
}

}  // namespace cairn::cli
