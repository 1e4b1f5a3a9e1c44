// Txn: the view of the metadata that one operation reads and changes.
//
// Reads see the operation's own writes, then those of earlier operations of the batch not yet applied, then
// the store. A failed operation's writes are dropped. Only the executor thread uses it. Values returned are
// copies.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "store/base/ids.h"
#include "store/base/result.h"

namespace cairn::meta {

class Txn {
 public:
  virtual ~Txn() = default;
  virtual Result<std::optional<std::string>> get(std::string_view key) = 0;
  virtual void put(std::string_view key, std::string_view value) = 0;
  virtual void erase(std::string_view key) = 0;
  // Keys that begin with `prefix`, from `from` (inclusive, itself beginning with prefix, or empty) upward, in
  // order; `visit` returns false to stop. Do not write inside visit.
  virtual Result<> scan(std::string_view prefix, std::string_view from,
                        const std::function<bool(std::string_view key, std::string_view value)>& visit) = 0;
  virtual std::int64_t wall_ns() const = 0;  // time enters as an input: one value an operation
  // Fresh ids; carry the era; durable before anything that reveals them can be (blocks are reserved with a
  // synced write).
  virtual std::uint64_t next_id() = 0;
  virtual Era era() const = 0;
  // Runs on the executor thread when the journal has accepted the batch of this operation, before its reply
  // is released; not if the operation fails. For in-memory state that must not run ahead of the journal.
  virtual void on_commit(std::function<void()> action) = 0;
  // Of keys and values to be written; more than a journal entry holds (meta/journal.h) makes the operation
  // fail.
  virtual std::size_t bytes_written() const { return 0; }
};

}  // namespace cairn::meta
