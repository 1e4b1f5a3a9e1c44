#include "meta/txn_overlay.h"

namespace cairn::meta {

Result<std::optional<std::string>> OverlayTxn::get(std::string_view key) {
  if (auto it = own_.find(key); it != own_.end()) return it->second;
  if (auto it = batch_.find(key); it != batch_.end()) return it->second;
  return kv_.get(key);
}

void OverlayTxn::put(std::string_view key, std::string_view value) {
  stage(key, std::string(value));
}

void OverlayTxn::erase(std::string_view key) {
  stage(key, std::nullopt);
}

void OverlayTxn::stage(std::string_view key, std::optional<std::string> value) {
  auto it = own_.lower_bound(key);
  if (it == own_.end() || it->first != key) {
    bytes_ += key.size() + 8;
    it = own_.emplace_hint(it, std::string(key), std::nullopt);
  } else if (it->second) {
    bytes_ -= it->second->size();
  }
  if (value) bytes_ += value->size();
  it->second = std::move(value);
}

Result<> OverlayTxn::scan(std::string_view prefix, std::string_view from,
                          const std::function<bool(std::string_view, std::string_view)>& visit) {
  const std::string_view start = from > prefix ? from : prefix;
  StagedWrites::const_iterator own = own_.lower_bound(start);
  StagedWrites::const_iterator batch = batch_.lower_bound(start);
  const auto in_range = [&](const StagedWrites& map, StagedWrites::const_iterator it) {
    return it != map.end() && it->first.starts_with(prefix);
  };
  // Visits staged rows below `limit` (or all), own before batch where both have a key. False: the visitor
  // stopped.
  const auto staged_until = [&](std::optional<std::string_view> limit) {
    for (;;) {
      const bool has_own = in_range(own_, own);
      const bool has_batch = in_range(batch_, batch);
      if (!has_own && !has_batch) return true;
      const bool take_own = has_own && (!has_batch || own->first <= batch->first);
      const StagedWrites::const_iterator row = take_own ? own : batch;
      if (limit && row->first >= *limit) return true;
      if (take_own && has_batch && batch->first == own->first) ++batch;
      take_own ? ++own : ++batch;
      if (row->second && !visit(row->first, *row->second)) return false;
    }
  };
  bool stopped = false;
  TRYV(kv_.scan(prefix, from, [&](std::string_view key, std::string_view value) {
    if (!staged_until(key)) {
      stopped = true;
      return false;
    }
    const bool hidden =
        (in_range(own_, own) && own->first == key) || (in_range(batch_, batch) && batch->first == key);
    if (hidden) return true;  // the staged row is visited before the next key, or at the end
    stopped = !visit(key, value);
    return !stopped;
  }));
  if (!stopped) staged_until(std::nullopt);
  return {};
}

}  // namespace cairn::meta
