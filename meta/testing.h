// For tests of both sides of meta/: an executor over the map store, and a way to run an operation and wait
// for it.
#pragma once

#include <future>
#include <memory>
#include <optional>

#include "meta/single_writer.h"
#include "store/base/clock.h"

namespace cairn::meta {

// Owns store, journal, clock and executor. kill() and power_cut() end them and start again with what
// survives.
class TestExecutor {
 public:
  explicit TestExecutor(Era era = Era(1)) : era_(era) { open({}); }
  ~TestExecutor() { close(); }

  Executor& executor() { return *writer_; }
  MapKvStore& kv() { return *kv_; }
  Journal& journal() { return *journal_; }
  ManualClock& clock() { return clock_; }

  // Runs `operation` and blocks until its reply is released.
  template <class Operation>
  auto run(Operation operation, Durability durability = Durability::kAccepted) {
    using R = std::invoke_result_t<Operation, Txn&>;  // Result<T>
    auto value = std::make_shared<std::optional<R>>();
    auto promise = std::make_shared<std::promise<Result<>>>();
    auto released = promise->get_future();
    writer_->submit(
        [value, operation = std::move(operation)](Txn& txn) mutable -> Result<> {
          value->emplace(operation(txn));
          if (!**value) return std::unexpected((*value)->error());
          return {};
        },
        durability, [promise](Result<> result) { promise->set_value(std::move(result)); });
    Result<> result = released.get();
    if (!result) return R(std::unexpected(std::move(result.error())));
    return std::move(**value);
  }

  void kill() { restart(kv_->after_kill()); }
  void power_cut(std::size_t unsynced_kept = 0) { restart(kv_->after_power_cut(unsynced_kept)); }
  // The error that stopped the executor, if any.
  const std::optional<Error>& fatal() const { return fatal_; }

 private:
  void open(const MapKvStore::Content& content) {
    kv_ = std::make_unique<MapKvStore>(content);
    journal_ = open_local_journal(*kv_, era_).value();
    SingleWriterConfig config;
    config.ids_per_range = 1024;
    writer_ = SingleWriter::start(
                  *kv_, *journal_, clock_, era_, [this](const Error& e) { fatal_ = e; }, config)
                  .value();
  }
  void close() {
    writer_.reset();
    journal_.reset();
    kv_.reset();
  }
  void restart(const MapKvStore::Content& content) {  // content was taken before the clean stop of close()
    const MapKvStore::Content survives = content;
    close();
    open(survives);
  }

  Era era_;
  ManualClock clock_;
  std::optional<Error> fatal_;
  std::unique_ptr<MapKvStore> kv_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<SingleWriter> writer_;
};

}  // namespace cairn::meta
