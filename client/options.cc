#include <cstdlib>

#include "client/client.h"

namespace cairn {
namespace {

Result<std::string> checked_address(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == text.size()) {
    return fail(Code::kConfig, "CAIRN_META: '" + std::string(text) + "' is not HOST:PORT");
  }
  unsigned port = 0;
  for (char c : text.substr(colon + 1)) {
    if (c < '0' || c > '9') port = 65536;
    if (port <= 65535) port = port * 10 + static_cast<unsigned>(c - '0');
  }
  if (port == 0 || port > 65535) {
    return fail(Code::kConfig,
                "CAIRN_META: the port in '" + std::string(text) + "' is not within 1 to 65535");
  }
  return std::string(text);
}

}  // namespace

Result<ClientOptions> client_options_from_environment() {
  ClientOptions options;
  const char* value = std::getenv("CAIRN_META");
  if (value == nullptr || *value == '\0') return options;
  options.meta.clear();
  std::string_view rest = value;
  for (;;) {
    const auto comma = rest.find(',');
    TRY(auto address, checked_address(rest.substr(0, comma)));
    options.meta.push_back(std::move(address));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  return options;
}

}  // namespace cairn
