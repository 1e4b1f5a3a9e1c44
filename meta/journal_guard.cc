#include "meta/journal_guard.h"

#include <fmt/format.h>

#include "meta/journal.h"
#include "meta/keys.h"

namespace cairn::meta {
namespace {

std::string bound_key(ServerId server) {
  return keys::one(KeyPrefix::kJournalBound, server.value());
}

// The index goes on counting in a new era. A new era alone proves nothing: it also begins after a loss.
bool beyond(JournalPosition position, JournalPosition bound) {
  return position > bound || position.index > bound.index;
}

}  // namespace

std::string went_back_key() {
  return keys::system("went_back");
}

Result<> JournalGuard::load(Txn& txn, JournalPosition began,
                            const std::map<ServerId, ClusterServer>& servers) {
  began_ = began;
  std::map<ServerId, JournalPosition> stored;
  std::optional<Error> bad;
  TRYV(
      txn.scan(keys::prefix(KeyPrefix::kJournalBound), {}, [&](std::string_view key, std::string_view value) {
        auto record = AppliedRecord::decode(value);
        if (!record) {
          bad = record.error();
          return false;
        }
        stored[ServerId(keys::part(key, 0))] = record->position;
        return true;
      }));
  if (bad) return fail(*bad);
  for (const auto& [server, bound] : stored) {
    if (servers.contains(server))
      bounds_[server] = bound;
    else
      txn.erase(bound_key(server));  // forgotten
  }
  for (const auto& [server, known] : servers)
    if (bounds_.try_emplace(server, began).second)
      txn.put(bound_key(server), AppliedRecord{began, 0}.encode());
  return {};
}

Result<> JournalGuard::check(ServerId server, JournalPosition remembered, JournalPosition synced) const {
  JournalPosition bound = synced;
  if (!seen_.contains(server)) {
    const auto known = bounds_.find(server);
    bound = known == bounds_.end() ? began_ : known->second;
  }
  if (!beyond(remembered, bound)) return {};
  return fail(
      Code::kNeedsOperator,
      fmt::format(
          "the metadata went back in time: server {} remembers its journal at {}, but here it went only to "
          "{}. An old copy of the metadata server's data_dir was put back, or its disk lost writes that it "
          "had confirmed. Serving would lose files, so the metadata server has stopped and will not start "
          "with this data_dir again. Put a newer copy of data_dir in its place and start it. If there is "
          "none, change nothing on the chunkservers' disks, and take the newest files from a backup into a "
          "new cluster. If that server is what is wrong, leave it stopped and run 'cairn-meta --salvage' "
          "once",
          to_string(server), to_string(remembered), to_string(bound)));
}

void JournalGuard::registered(Txn& txn, ServerId server) {
  seen_.insert(server);
  if (bounds_.erase(server) > 0) txn.erase(bound_key(server));
}

}  // namespace cairn::meta
