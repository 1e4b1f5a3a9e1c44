// SingleWriter: the executor. See meta/executor.h for what it promises.
//
// One thread at a time has the turn: it runs the operations that wait, appends their batch to the journal and
// releases replies. A caller who finds nobody at work takes it for its own operation (two switches of thread
// cost more than most operations); what arrives meanwhile is left to the executor's own thread. The sync
// thread calls Journal::sync (one for all that wait, and one within a second of the last unsynced batch), so
// that nobody with the turn waits for a disk's flush.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "meta/executor.h"
#include "meta/journal.h"
#include "meta/txn_overlay.h"

namespace cairn::meta {

struct SingleWriterConfig {
  std::size_t queue_max = 8192;          // operations waiting; more are refused with kOverloaded
  std::size_t batch_bytes = 256 * 1024;  // a batch is closed when it holds as much
  std::size_t batch_operations = 512;
  std::chrono::milliseconds sync_interval{500};  // background sync of accepted batches
  std::uint64_t ids_per_range = 1 << 20;
};

// Ids from ranges whose end is durable before any id of the range is handed out. With the executor's turn
// only, after open().
class IdAllocator final : public IdSource {
 public:
  // Reads the end of what earlier processes reserved, and reserves a first range with a synced append.
  static Result<IdAllocator> open(const KvStore& kv, Journal& journal, Era era, std::uint64_t per_range);
  std::uint64_t next() override;
  Era era() const override { return era_; }
  // At the end of each batch: adds the row that reserves the next range when the current one is half used.
  void maybe_reserve(StagedWrites& batch);
  void accepted(JournalPosition position);  // of the batch that maybe_reserve last saw
  void synced(JournalPosition position);
  const std::optional<Error>& failure() const { return failure_; }

 private:
  IdAllocator(Journal& journal, Era era, std::uint64_t per_range)
      : journal_(&journal), era_(era), per_range_(per_range) {}
  Result<> reserve_now();

  Journal* journal_;
  Era era_;
  std::uint64_t per_range_;
  std::uint64_t next_ = 0;
  std::uint64_t usable_end_ = 0;  // durably reserved
  std::uint64_t asked_end_ = 0;   // staged or accepted, not yet known to be synced
  std::optional<JournalPosition> asked_at_;
  std::optional<Error> failure_;
};

class SingleWriter final : public Executor {
 public:
  // `fatal` is called once, on the executor or the sync thread, when the journal failed: the process must
  // exit.
  static Result<std::unique_ptr<SingleWriter>> start(KvStore& kv, Journal& journal, const Clock& clock,
                                                     Era era, std::function<void(const Error&)> fatal,
                                                     const SingleWriterConfig& config = {});
  ~SingleWriter() override;  // stop()
  // Operations still queued end with kCancelled; what was accepted is synced; both threads are joined.
  // Idempotent.
  void stop();

  rpc::Task<Result<>> sync() override;
  JournalPosition synced_position() const override;
  bool on_executor_thread() const override;
  void post(std::function<void()> work) override;
  void submit(std::function<Result<>(Txn&)> operation, Durability durability,
              std::function<void(Result<>)> done) override;

 private:
  struct Item {
    std::function<Result<>(Txn&)> operation;  // empty: `work`
    Durability durability = Durability::kAccepted;
    std::function<void(Result<>)> done;
    std::function<void()> work;
  };
  struct Release {
    Result<> result;
    Durability durability;
    std::function<void(Result<>)> done;
  };
  SingleWriter(KvStore& kv, Journal& journal, const Clock& clock, IdAllocator ids,
               std::function<void(const Error&)> fatal, const SingleWriterConfig& config);
  void begin_turn_locked(std::deque<Item>& items);
  void run_items(std::deque<Item>& items);
  void end_turn();
  void run_executor();
  void stop_executor(std::deque<Item>& items);
  void run_sync();
  void run_operation(Item& item);
  void close_batch();
  void want_sync(bool now);
  void release_synced(JournalPosition reached);
  void fail_all(const Error& error);

  KvStore& kv_;
  Journal& journal_;
  const Clock& clock_;
  const std::function<void(const Error&)> fatal_;
  const SingleWriterConfig config_;

  // by whoever has the turn
  IdAllocator ids_;
  StagedWrites batch_;
  std::size_t batch_bytes_ = 0;
  std::vector<std::function<void()>> batch_actions_;
  std::vector<Release> releases_;
  std::multimap<JournalPosition, std::function<void(Result<>)>> sync_waiters_;
  std::optional<Error> failed_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_executor_;
  std::condition_variable wake_sync_;
  std::thread::id turn_;  // who works; none: the default
  std::deque<Item> queue_;
  std::size_t queued_operations_ = 0;
  bool stopping_ = false;
  bool sync_stopping_ = false;
  bool sync_now_ = false;
  bool unsynced_ = false;
  JournalPosition synced_;

  std::thread thread_;
  std::thread sync_thread_;
};

}  // namespace cairn::meta
