#include "meta/single_writer.h"

#include <pthread.h>

#include "meta/key_prefixes.h"
#include "store/base/bytes.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {
std::string id_range_key() {
  return std::string(1, static_cast<char>(KeyPrefix::kIdRange));
}
std::string id_range_value(std::uint64_t end) {
  std::string out;
  ByteWriter w(out);
  w.u8(1);
  w.u64(end);
  return out;
}
}  // namespace

// --- ids ---

Result<IdAllocator> IdAllocator::open(const KvStore& kv, Journal& journal, Era era, std::uint64_t per_range) {
  IdAllocator ids(journal, era, per_range);
  ids.next_ = 1024;  // the low numbers name fixed things (kRootInode)
  TRY(auto stored, kv.get(id_range_key()));
  if (stored) {
    ByteReader r(*stored);
    const auto version = r.u8();
    ids.next_ = r.u64();
    if (version != 1 || !r.done()) return fail(Code::kCorrupt, "record of reserved ids does not decode");
  }
  ids.usable_end_ = ids.asked_end_ = ids.next_;
  TRYV(ids.reserve_now());
  return ids;
}

Result<> IdAllocator::reserve_now() {
  const std::uint64_t end = asked_end_ + per_range_;
  TRYV(journal_->append({{id_range_key(), id_range_value(end)}}));
  TRYV(journal_->sync());
  usable_end_ = asked_end_ = end;
  asked_at_.reset();
  return {};
}

std::uint64_t IdAllocator::next() {
  // The next range is asked for when half of the current one is left, so this waits for a disk only when a
  // sync takes longer than it takes to use up half a range.
  if (next_ == usable_end_) {
    if (auto reserved = reserve_now(); !reserved) {
      failure_.emplace(std::move(reserved.error()));  // the batch will not be accepted
      return with_era(era_, next_);
    }
  }
  return with_era(era_, next_++);
}

void IdAllocator::maybe_reserve(StagedWrites& batch) {
  if (asked_end_ != usable_end_ || usable_end_ - next_ > per_range_ / 2) return;
  asked_end_ = usable_end_ + per_range_;
  batch.insert_or_assign(id_range_key(), id_range_value(asked_end_));
}

void IdAllocator::accepted(JournalPosition position) {
  if (asked_end_ != usable_end_ && !asked_at_) asked_at_ = position;
}

void IdAllocator::synced(JournalPosition position) {
  if (!asked_at_ || *asked_at_ > position) return;
  usable_end_ = asked_end_;
  asked_at_.reset();
}

// --- the executor ---

Result<std::unique_ptr<SingleWriter>> SingleWriter::start(KvStore& kv, Journal& journal, const Clock& clock,
                                                          Era era, std::function<void(const Error&)> fatal,
                                                          const SingleWriterConfig& config) {
  TRY(auto ids, IdAllocator::open(kv, journal, era, config.ids_per_range));
  std::unique_ptr<SingleWriter> writer(
      new SingleWriter(kv, journal, clock, std::move(ids), std::move(fatal), config));
  return writer;
}

SingleWriter::SingleWriter(KvStore& kv, Journal& journal, const Clock& clock, IdAllocator ids,
                           std::function<void(const Error&)> fatal, const SingleWriterConfig& config)
    : kv_(kv),
      journal_(journal),
      clock_(clock),
      fatal_(std::move(fatal)),
      config_(config),
      ids_(std::move(ids)) {
  synced_ = journal_.accepted();  // IdAllocator::open has just synced
  std::lock_guard lock(mutex_);   // thread_ is set before the executor looks at it
  thread_ = std::thread([this] { run_executor(); });
  sync_thread_ = std::thread([this] { run_sync(); });
  pthread_setname_np(thread_.native_handle(), "meta-executor");
  pthread_setname_np(sync_thread_.native_handle(), "meta-sync");
}

SingleWriter::~SingleWriter() {
  stop();
}

void SingleWriter::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_executor_.notify_one();
  if (thread_.joinable()) thread_.join();
  {
    std::lock_guard lock(mutex_);
    sync_stopping_ = true;
  }
  wake_sync_.notify_one();
  if (sync_thread_.joinable()) sync_thread_.join();
}

void SingleWriter::submit(std::function<Result<>(Txn&)> operation, Durability durability,
                          std::function<void(Result<>)> done) {
  std::optional<Error> refused;
  std::deque<Item> items;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) {
      refused.emplace(Code::kCancelled, "the metadata server is stopping");
    } else if (queued_operations_ >= config_.queue_max) {
      refused.emplace(Code::kOverloaded, "the metadata server has too many requests waiting");
    } else {
      ++queued_operations_;
      queue_.push_back({std::move(operation), durability, std::move(done), nullptr});
      // Nobody else is at work: without a hop to the executor's thread and back.
      if (turn_ == std::thread::id() && queue_.size() == 1) begin_turn_locked(items);
    }
  }
  if (refused) return done(std::unexpected(std::move(*refused)));
  if (items.empty()) return;
  run_items(items);
  end_turn();
}

void SingleWriter::post(std::function<void()> work) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  queue_.push_back({nullptr, Durability::kAccepted, nullptr, std::move(work)});
  if (turn_ == std::thread::id()) wake_executor_.notify_one();
}

bool SingleWriter::on_executor_thread() const {
  std::lock_guard lock(mutex_);
  return turn_ == std::this_thread::get_id();
}

rpc::Task<Result<>> SingleWriter::sync() {
  std::function<Result<>(Txn&)> nothing = [](Txn&) -> Result<> { return {}; };
  auto synced = co_await run<void>(std::move(nothing), Durability::kSynced);
  co_return synced;
}

JournalPosition SingleWriter::synced_position() const {
  std::lock_guard lock(mutex_);
  return synced_;
}

void SingleWriter::begin_turn_locked(std::deque<Item>& items) {
  turn_ = std::this_thread::get_id();
  items.swap(queue_);
  queued_operations_ = 0;
}

void SingleWriter::end_turn() {
  std::lock_guard lock(mutex_);
  turn_ = {};
  if (stopping_ || !queue_.empty()) wake_executor_.notify_one();
}

void SingleWriter::run_items(std::deque<Item>& items) {
  for (Item& item : items) {
    if (item.work) {
      close_batch();  // it may show outside what the operations before it did
      item.work();
    } else if (failed_) {
      item.done(std::unexpected(*failed_));
    } else {
      run_operation(item);
    }
  }
  items.clear();
  close_batch();
}

void SingleWriter::run_executor() {
  for (;;) {
    std::deque<Item> items;
    bool stopping = false;
    {
      std::unique_lock lock(mutex_);
      wake_executor_.wait(lock,
                          [this] { return turn_ == std::thread::id() && (stopping_ || !queue_.empty()); });
      begin_turn_locked(items);
      stopping = stopping_;
    }
    if (stopping) return stop_executor(items);  // and keeps the turn
    run_items(items);
    end_turn();
  }
}

void SingleWriter::stop_executor(std::deque<Item>& items) {
  const Result<> cancelled = fail(Code::kCancelled, "the metadata server is stopping");
  for (Item& item : items) {
    if (item.work) {
      item.work();
    } else {
      item.done(cancelled);
    }
  }
  if (!failed_) {
    if (auto reached = journal_.sync()) {
      release_synced(*reached);
    } else {
      fail_all(reached.error());
    }
  }
  for (auto& [position, done] : sync_waiters_) done(cancelled);
  sync_waiters_.clear();
}

void SingleWriter::run_operation(Item& item) {
  OverlayTxn txn(kv_, batch_, ids_, clock_.wall_ns());
  Result<> result = item.operation(txn);
  if (result && txn.bytes_written() > kEntryBytesMax) {
    result = fail(Code::kInternal, "an operation wrote more than one journal entry can hold");
  }
  if (result) {
    if (batch_bytes_ + txn.bytes_written() > kEntryBytesMax) close_batch();
    batch_bytes_ += txn.bytes_written();
    if (batch_.empty()) {
      batch_.swap(txn.writes());
    } else {
      for (auto& [key, value] : txn.writes()) batch_.insert_or_assign(key, std::move(value));
    }
    for (auto& action : txn.actions()) batch_actions_.push_back(std::move(action));
  }
  releases_.push_back({std::move(result), item.durability, std::move(item.done)});
  if (batch_bytes_ >= config_.batch_bytes || releases_.size() >= config_.batch_operations) close_batch();
}

void SingleWriter::close_batch() {
  if (releases_.empty()) return;
  if (!failed_ && !batch_.empty()) {
    ids_.maybe_reserve(batch_);
    KvBatch writes;
    writes.reserve(batch_.size() + 1);
    while (!batch_.empty()) {
      auto node = batch_.extract(batch_.begin());
      writes.push_back({std::move(node.key()), std::move(node.mapped())});
    }
    auto position = ids_.failure() ? Result<JournalPosition>(std::unexpected(*ids_.failure()))
                                   : journal_.append(std::move(writes));
    if (position) {
      ids_.accepted(*position);
      want_sync(false);
    } else {
      fail_all(position.error());
    }
  }
  batch_.clear();
  batch_bytes_ = 0;
  auto actions = std::exchange(batch_actions_, {});
  auto releases = std::exchange(releases_, {});
  if (failed_) {
    for (Release& release : releases) release.done(std::unexpected(*failed_));
    return;
  }
  for (auto& action : actions) action();
  const JournalPosition reached = journal_.accepted();
  bool waits = false;
  for (Release& release : releases) {
    if (release.result && release.durability == Durability::kSynced && reached > synced_position()) {
      sync_waiters_.emplace(reached, std::move(release.done));
      waits = true;
    } else {
      release.done(std::move(release.result));
    }
  }
  if (waits) want_sync(true);
}

void SingleWriter::fail_all(const Error& error) {
  if (failed_) return;
  failed_ = error;
  for (auto& [position, done] : sync_waiters_) done(std::unexpected(error));
  sync_waiters_.clear();
  fatal_(error);
}

void SingleWriter::release_synced(JournalPosition reached) {
  ids_.synced(reached);
  while (!sync_waiters_.empty() && sync_waiters_.begin()->first <= reached) {
    auto node = sync_waiters_.extract(sync_waiters_.begin());
    node.mapped()({});
  }
}

// --- the sync thread ---

void SingleWriter::want_sync(bool now) {
  std::lock_guard lock(mutex_);
  const bool wake = (now && !sync_now_) || !unsynced_;
  sync_now_ = sync_now_ || now;
  unsynced_ = true;
  if (wake) wake_sync_.notify_one();
}

void SingleWriter::run_sync() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_sync_.wait(lock, [this] { return sync_stopping_ || unsynced_; });
      wake_sync_.wait_for(lock, config_.sync_interval, [this] { return sync_stopping_ || sync_now_; });
      if (sync_stopping_) return;  // the executor has done the last sync itself
      sync_now_ = false;
      unsynced_ = false;
    }
    auto reached = journal_.sync();
    std::lock_guard lock(mutex_);
    if (reached) synced_ = std::max(synced_, *reached);
    std::function<void()> work = [this, reached] {
      if (reached) {
        release_synced(*reached);
      } else {
        fail_all(reached.error());
      }
    };
    queue_.push_back({nullptr, Durability::kAccepted, nullptr, std::move(work)});
    if (turn_ == std::thread::id()) wake_executor_.notify_one();
    if (!reached) return;
  }
}

}  // namespace cairn::meta
