#include "chunkserver/purger.h"

#include <algorithm>
#include <map>

#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::string_view kKey = "purges";
constexpr std::uint32_t kIndicesAtOnce = 512;  // a pool thread is not held for longer
// Of data ids with more indices (a sparse file has millions, and few chunks) the chunks are looked for among
// those that the target has.
constexpr std::uint32_t kIndicesMax = 4096;
constexpr std::size_t kRecordsAtOnce = 4096;
constexpr std::size_t kOrdersAtOnce = 256;  // between two records of the progress
constexpr Duration kPurgeRetry = std::chrono::seconds(1);

bool server_stops(const Result<>& result) {
  return !result && result.error().code() == Code::kCancelled;
}

// Whether the task that awaits it is to end.
rpc::Task<Result<>> go_on(rpc::Runtime& runtime) {
  auto slept = co_await rpc::sleep_for(runtime, Duration(0));
  co_return slept;
}

}  // namespace

Purger::Purger(rpc::Runtime& runtime, std::vector<Target*> targets, PurgedIds& purged,
               std::function<bool()> joins, std::function<void()> heartbeat_now)
    : runtime_(runtime),
      targets_(std::move(targets)),
      purged_(purged),
      joins_(std::move(joins)),
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
    // While a group is copied to here none may be forgotten: its source may be far behind with them.
    while (purged_.full() && joins_()) {
      auto slept = co_await rpc::sleep_for(runtime_, kPurgeRetry);
      if (!slept) co_return;
    }
    for (const PurgeOrder& order : batch) purged_.add(order.data);
    for (Target* target : targets_) {
      // Twice: a copy that looked at the purged ids just before may have ended just after the first pass.
      for (int pass = 0; pass < 2;) {
        if (target->failed()) break;
        auto purged = co_await purge(*target, batch);
        if (purged) {
          ++pass;
          continue;
        }
        if (server_stops(purged)) co_return;
        log_warn("purge_waits", "target={} orders={} error={}", to_string(target->id()), batch.size(),
                 log_quote(purged.error().to_string()));
        auto slept = co_await rpc::sleep_for(runtime_, kPurgeRetry);
        if (!slept) co_return;
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

rpc::Task<Result<>> Purger::purge(Target& target, std::vector<PurgeOrder> orders) {
  std::map<PoolId, DataIds> large;
  for (const PurgeOrder& order : orders) {
    if (order.chunks > kIndicesMax) {
      large[order.pool].insert(order.data);
      continue;
    }
    for (std::uint32_t from = 0; from < order.chunks; from += kIndicesAtOnce) {
      auto on = co_await go_on(runtime_);
      if (!on) co_return on;
      const std::uint32_t to = std::min(from + kIndicesAtOnce, order.chunks);
      Target::Work<void> work = [order, from, to](disk::ChunkEngine& engine) -> Result<> {
        for (std::uint32_t index = from; index < to; ++index)
          TRYV(engine.purge(order.pool, ChunkId{order.data, index, 0}));
        return {};
      };
      auto done = co_await target.run<void>(std::move(work));
      if (!done) co_return done;
    }
  }
  for (auto& [pool, ids] : large) {
    auto done = co_await purge_found(target, pool, std::move(ids));
    if (!done) co_return done;
  }
  co_return Result<>();
}

// Whatever the target has of these data ids.
rpc::Task<Result<>> Purger::purge_found(Target& target, PoolId pool, DataIds ids) {
  const auto wanted = std::make_shared<const DataIds>(std::move(ids));
  using Cursor = std::optional<ChunkId>;
  Cursor after;
  do {
    auto on = co_await go_on(runtime_);
    if (!on) co_return on;
    Target::Work<Cursor> work = [wanted, pool, after](disk::ChunkEngine& engine) -> Result<Cursor> {
      std::vector<ChunkId> found;
      Cursor last;
      std::size_t seen = 0;
      TRYV(engine.for_each(GroupId{pool, 0}, 1, after, [&](const disk::ChunkInfo& info) {
        last = info.chunk;
        if (wanted->contains(info.chunk.data)) found.push_back(info.chunk);
        return ++seen < kRecordsAtOnce;
      }));
      for (const ChunkId& chunk : found) TRYV(engine.purge(pool, chunk));
      return seen < kRecordsAtOnce ? Cursor() : last;
    };
    auto next = co_await target.run<Cursor>(std::move(work));
    if (!next) co_return fail(std::move(next.error()));
    after = *next;
  } while (after);
  co_return Result<>();
}

}  // namespace cairn::chunkserver
