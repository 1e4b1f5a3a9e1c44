#include <deque>
#include <map>
#include <mutex>

#include "meta/kv_store.h"

namespace cairn::meta {

namespace {
using Map = std::map<std::string, std::string, std::less<>>;

void apply_batch(Map& map, const KvBatch& batch) {
  for (const KvWrite& write : batch) {
    if (write.value) {
      map.insert_or_assign(write.key, *write.value);
    } else {
      map.erase(write.key);
    }
  }
}
MapKvStore::Content content_of(const Map& map) {
  return {map.begin(), map.end()};
}
}  // namespace

struct MapKvStore::State {
  mutable std::mutex mutex;
  Map all;
  Map synced;
  std::deque<KvBatch> unsynced;
  std::optional<std::size_t> writes_left;
};

MapKvStore::MapKvStore() : state_(std::make_unique<State>()) {}
MapKvStore::MapKvStore(const Content& content) : MapKvStore() {
  state_->all.insert(content.begin(), content.end());
  state_->synced = state_->all;
}
MapKvStore::~MapKvStore() = default;

Result<std::optional<std::string>> MapKvStore::get(std::string_view key) const {
  std::lock_guard lock(state_->mutex);
  auto it = state_->all.find(key);
  if (it == state_->all.end()) return std::nullopt;
  return it->second;
}

Result<> MapKvStore::scan(std::string_view prefix, std::string_view from,
                          const std::function<bool(std::string_view, std::string_view)>& visit) const {
  std::lock_guard lock(state_->mutex);
  auto it = state_->all.lower_bound(from > prefix ? from : prefix);
  for (; it != state_->all.end() && it->first.starts_with(prefix); ++it) {
    if (!visit(it->first, it->second)) break;
  }
  return {};
}

Result<> MapKvStore::write(const KvBatch& batch) {
  std::lock_guard lock(state_->mutex);
  if (state_->writes_left) {
    if (*state_->writes_left == 0) return fail(Code::kIo, "simulated disk has stopped");
    --*state_->writes_left;
  }
  apply_batch(state_->all, batch);
  state_->unsynced.push_back(batch);
  return {};
}

Result<> MapKvStore::sync() {
  std::lock_guard lock(state_->mutex);
  if (state_->writes_left && *state_->writes_left == 0) return fail(Code::kIo, "simulated disk has stopped");
  for (const KvBatch& batch : state_->unsynced) apply_batch(state_->synced, batch);
  state_->unsynced.clear();
  return {};
}

MapKvStore::Content MapKvStore::after_kill() const {
  std::lock_guard lock(state_->mutex);
  return content_of(state_->all);
}

MapKvStore::Content MapKvStore::after_power_cut(std::size_t unsynced_kept) const {
  std::lock_guard lock(state_->mutex);
  Map map = state_->synced;
  for (std::size_t i = 0; i < unsynced_kept && i < state_->unsynced.size(); ++i)
    apply_batch(map, state_->unsynced[i]);
  return content_of(map);
}

std::size_t MapKvStore::unsynced() const {
  std::lock_guard lock(state_->mutex);
  return state_->unsynced.size();
}

void MapKvStore::fail_after(std::size_t writes) {
  std::lock_guard lock(state_->mutex);
  state_->writes_left = writes;
}

}  // namespace cairn::meta
