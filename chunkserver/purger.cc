#include "chunkserver/purger.h"

#include <algorithm>

#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::string_view kKey = "purges";
constexpr std::uint32_t kIndicesAtOnce = 512;  // a pool thread is not held for longer
constexpr std::size_t kOrdersAtOnce = 256;     // between two records of the progress
constexpr Duration kPurgeRetry = std::chrono::seconds(1);

}  // namespace

Purger::Purger(rpc::Runtime& runtime, std::vector<Target*> targets, PurgedIds& purged,
               std::function<void()> heartbeat_now)
    : runtime_(runtime),
      targets_(std::move(targets)),
      purged_(purged),
      heartbeat_now_(std::move(heartbeat_now)),
      wake_(runtime) {}

Result<> Purger::restore(const std::vector<disk::ChunkEngine*>& engines) {
  std::uint64_t lowest = UINT64_MAX;
  for (disk::ChunkEngine* engine : engines) {
    TRY(auto value, engine->get_value(kKey));
    std::uint64_t sequence = 0;
    if (value) {
      TRY(sequence, purged_.restore(*value));
    }
    lowest = std::min(lowest, sequence);
  }
  done_ = engines.empty() ? 0 : lowest;
  last_queued_ = done_;
  return {};
}

void Purger::start(rpc::TaskGroup& tasks) {
  tasks.spawn(runtime_.make_strand(), run());
}

void Purger::add(const std::vector<PurgeOrder>& orders) {
  std::vector<PurgeOrder> sorted = orders;
  std::ranges::sort(sorted, {}, &PurgeOrder::sequence);
  std::lock_guard lock(mutex_);
  for (const PurgeOrder& order : sorted) {
    if (order.sequence <= last_queued_) continue;  // heartbeats repeat what is not reported done
    last_queued_ = order.sequence;
    queue_.push_back(order);
  }
  if (!queue_.empty()) wake_.set();
}

rpc::Task<> Purger::run() {
  for (;;) {
    std::vector<PurgeOrder> batch;
    {
      std::lock_guard lock(mutex_);
      while (!queue_.empty() && batch.size() < kOrdersAtOnce) {
        batch.push_back(queue_.front());
        queue_.pop_front();
      }
      if (batch.empty()) wake_.reset();
    }
    if (batch.empty()) {
      auto woken = co_await wake_.wait(Deadline::never());
      if (!woken) co_return;
      continue;
    }
    for (const PurgeOrder& order : batch) purged_.add(order.data);
    for (Target* target : targets_) {
      // Twice: a copy that looked at the purged ids just before may have ended just after the first pass.
      for (int pass = 0; pass < 2; ++pass) {
        for (std::size_t i = 0; i < batch.size();) {
          if (target->failed()) break;
          auto purged = co_await purge(*target, batch[i]);
          if (purged) {
            ++i;
            continue;
          }
          log_warn("purge_waits", "target={} data={} error={}", to_string(target->id()),
                   to_string(batch[i].data), log_quote(purged.error().to_string()));
          auto slept = co_await rpc::sleep_for(runtime_, kPurgeRetry);
          if (!slept) co_return;
        }
      }
      Target::Work<void> keep = [this, sequence = batch.back().sequence](disk::ChunkEngine& engine) {
        return engine.set_value(kKey, purged_.encode(sequence));
      };
      auto kept = co_await target->run_durable<void>(std::move(keep));
      if (!kept && !target->failed())
        log_warn("purge_not_recorded", "target={} error={}", to_string(target->id()),
                 log_quote(kept.error().to_string()));
    }
    done_ = batch.back().sequence;
    log_debug("purged", "orders={} up_to={}", batch.size(), batch.back().sequence);
    heartbeat_now_();
  }
}

rpc::Task<Result<>> Purger::purge(Target& target, PurgeOrder order) {
  for (std::uint32_t from = 0; from < order.chunks;) {
    const std::uint32_t to = from + std::min(kIndicesAtOnce, order.chunks - from);
    Target::Work<void> work = [order, from, to](disk::ChunkEngine& engine) -> Result<> {
      for (std::uint32_t index = from; index < to; ++index)
        TRYV(engine.purge(order.pool, ChunkId{order.data, index, 0}));
      return {};
    };
    auto done = co_await target.run<void>(std::move(work));
    if (!done) co_return done;
    from = to;
  }
  co_return Result<>();
}

}  // namespace cairn::chunkserver
