// Staged writes over a KvStore: what earlier operations of the batch wrote, and on top what this operation
// wrote.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "meta/kv_store.h"
#include "meta/txn.h"

namespace cairn::meta {

// Writes not yet in the store, in key order. Executor thread only.
using StagedWrites = std::map<std::string, std::optional<std::string>, std::less<>>;

// Where a Txn gets fresh ids; see IdAllocator.
class IdSource {
 public:
  virtual ~IdSource() = default;
  virtual std::uint64_t next() = 0;
  virtual Era era() const = 0;
};

// One operation's view: own writes, over the batch's, over the store. The referred parts outlive it.
class OverlayTxn final : public Txn {
 public:
  OverlayTxn(const KvStore& kv, const StagedWrites& batch, IdSource& ids, std::int64_t wall_ns)
      : kv_(kv), batch_(batch), ids_(ids), wall_ns_(wall_ns) {}
  Result<std::optional<std::string>> get(std::string_view key) override;
  void put(std::string_view key, std::string_view value) override;
  void erase(std::string_view key) override;
  Result<> scan(std::string_view prefix, std::string_view from,
                const std::function<bool(std::string_view, std::string_view)>& visit) override;
  std::int64_t wall_ns() const override { return wall_ns_; }
  std::uint64_t next_id() override { return ids_.next(); }
  Era era() const override { return ids_.era(); }
  void on_commit(std::function<void()> action) override { actions_.push_back(std::move(action)); }

  std::size_t bytes_written() const override { return bytes_; }
  StagedWrites& writes() { return own_; }
  std::vector<std::function<void()>>& actions() { return actions_; }

 private:
  void stage(std::string_view key, std::optional<std::string> value);
  const KvStore& kv_;
  const StagedWrites& batch_;
  IdSource& ids_;
  std::int64_t wall_ns_;
  StagedWrites own_;
  std::size_t bytes_ = 0;
  std::vector<std::function<void()>> actions_;
};

}  // namespace cairn::meta
