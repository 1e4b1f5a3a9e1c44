// The metadata server's single writer: one thread at a time runs operations, gathers their physical puts and
// deletes into a batch, hands it to the journal, applies it together with the position, then releases the
// replies. Nothing that reveals a batch leaves the process before the journal has it. "The executor thread" is
// the thread that is doing so: it may be any, one after the other.
//
// Durability: the local journal is RocksDB's WAL. An operation run with kAccepted returns when the kernel has
// the batch (it survives kill -9 of the process); kSynced when it survives a power cut (one sync for all
// waiting: group commit). A background sync follows accepted batches within a second. Ids come from ranges
// reserved by a synced write, and a start after the *machine* went down without a clean stop raises the era
// and ends all sessions, so that lost unsynced batches can never make an id or a session come back with
// another meaning. What other servers are told to remember is the synced position only. (POSIX asks no more
// for create, rename, ...: fsync of file or directory is SyncMeta.)
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "meta/txn.h"
#include "store/base/clock.h"
#include "store/rpc/task.h"

namespace cairn::meta {

enum class Durability { kAccepted, kSynced };

class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `operation` on the executor thread. Its error is returned and its writes dropped. kOverloaded: queue
  // full, not run. kIo: the journal failed; the server must stop (the process exits with a clear message).
  template <class T>
  rpc::Task<Result<T>> run(std::function<Result<T>(Txn&)> operation,
                           Durability durability = Durability::kAccepted);
  // Everything accepted before is durable.
  virtual rpc::Task<Result<>> sync() = 0;
  virtual JournalPosition synced_position() const = 0;  // thread-safe
  virtual bool on_executor_thread() const = 0;
  // Runs `work` on the executor thread without a transaction (in-memory state that it owns: leases, routing).
  virtual void post(std::function<void()> work) = 0;

 protected:
  // Type-erased form of run(): `operation` runs once, then `done` once, on the executor thread, after
  // release.
  virtual void submit(std::function<Result<>(Txn&)> operation, Durability durability,
                      std::function<void(Result<>)> done) = 0;
};

}  // namespace cairn::meta

#include "meta/executor_inl.h"
