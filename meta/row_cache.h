// RowCache: rows read or written lately, so that a read of a hot row (a directory, the counters, a file made
// a second ago) does not search the store's memtable: with a hundred thousand rows in it that search was most
// of what a mutation cost. Absent rows are remembered too.
//
// Bounded by bytes, in two generations: when the young one is half of the bound, it becomes the old one, and
// what was in the old one and not used since goes. Not thread-safe. Owner: a KvStore, which sets every row it
// writes.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace cairn::meta {

class RowCache {
 public:
  using Value = std::optional<std::string>;  // none: there is no such row
  explicit RowCache(std::size_t bytes_max) : generation_max_(bytes_max / 2) {}

  // Null: not known. Valid until the next call.
  const Value* find(std::string_view key) {
    if (auto it = young_.find(key); it != young_.end()) return &it->second;
    auto it = old_.find(key);
    if (it == old_.end()) return nullptr;
    auto node = old_.extract(it);
    const std::size_t bytes = cost(node.key(), node.mapped());
    auto placed = young_.insert(std::move(node)).position;
    bytes_ += bytes;
    return &placed->second;
  }

  void set(std::string_view key, Value value) {
    if (bytes_ >= generation_max_) {
      old_ = std::exchange(young_, {});
      bytes_ = 0;
    }
    const std::size_t bytes = cost(key, value);
    if (auto it = young_.find(key); it != young_.end()) {
      bytes_ += bytes - cost(key, it->second);
      it->second = std::move(value);
      return;
    }
    young_.emplace(key, std::move(value));  // hides one of the old generation
    bytes_ += bytes;
  }

  void clear() {
    young_.clear();
    old_.clear();
    bytes_ = 0;
  }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  static std::size_t cost(std::string_view key, const Value& value) {
    constexpr std::size_t kNode = 112;  // of the map and the allocator
    return kNode + key.size() + (value ? value->size() : 0);
  }

  using Rows = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;
  const std::size_t generation_max_;
  std::size_t bytes_ = 0;  // of young_
  Rows young_, old_;
};

}  // namespace cairn::meta
