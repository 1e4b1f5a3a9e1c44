#include "meta/trash_keeper.h"

#include "meta/ops/operations.h"
#include "store/base/log.h"

namespace cairn::meta {

namespace {
constexpr Duration kRound = std::chrono::seconds(1);
// Of the cluster's space, given up at once when it is nearly full.
constexpr std::uint64_t kPart = 50;
}  // namespace

// `due`: what has expired too.
rpc::Task<Result<ops::ExpireResult>> TrashKeeper::expire(bool due, std::uint64_t bytes) {
  ops::ExpireResult all;
  do {
    LeaseArbiter::Operation<ops::ExpireResult> step = [this, due, left = bytes - std::min(bytes, all.bytes)](
                                                          ops::Env& env,
                                                          OpGate&) -> Result<ops::ExpireResult> {
      TRY(const auto expired, ops::expire_trash(env, {due ? env.txn.wall_ns() : 0, left}));
      TRY(const Counters counters, load_counters(env.txn));
      if (expired.files > 0) env.txn.on_commit([this, counters] { publish_(counters); });
      return expired;
    };
    auto done =
        co_await arbiter_->perform<ops::ExpireResult>(SessionId{}, std::move(step), Deadline::never());
    if (!done) co_return std::unexpected(std::move(done.error()));
    all.files += done->files;
    all.bytes += done->bytes;
    all.more = done->more && (due || all.bytes < bytes);
  } while (all.more);
  co_return all;
}

rpc::Task<Result<bool>> TrashKeeper::free_some(std::uint64_t bytes, Deadline deadline) {
  const std::uint64_t part = cluster_.space().total_bytes / kPart;
  const std::uint64_t wanted = std::max({bytes, part, std::uint64_t{1}});
  auto expired = co_await expire(false, wanted);
  if (!expired) co_return std::unexpected(std::move(expired.error()));
  if (expired->files > 0)
    log_info("trash_given_up_before_its_time", "files={} bytes={} wanted={}", expired->files, expired->bytes,
             wanted);
  auto purged = co_await cluster_.purged(deadline);
  if (!purged) co_return std::unexpected(std::move(purged.error()));
  co_return expired->files > 0 || *purged;
}

rpc::Task<Result<bool>> TrashKeeper::reclaim(std::uint64_t bytes, Deadline deadline) {
  std::shared_ptr<Reclaiming> ours;
  while (!ours) {
    std::shared_ptr<Reclaiming> others;
    {
      std::lock_guard lock(mutex_);
      if (reclaiming_) {
        others = reclaiming_;
      } else {
        ours = reclaiming_ = std::make_shared<Reclaiming>(runtime_);
      }
    }
    if (!others) break;
    // Who comes while space is being freed waits for that, and asks again if it was not enough.
    auto done = co_await others->done.wait(deadline);
    if (!done) co_return std::unexpected(std::move(done.error()));
    // If it failed, perhaps only because its caller had no more patience, one who waits takes over.
    if (!others->failed) co_return others->freed.load();
  }
  auto freed = co_await free_some(bytes, deadline);
  ours->freed = freed && *freed;
  ours->failed = !freed;
  {
    std::lock_guard lock(mutex_);
    reclaiming_.reset();
  }
  ours->done.set();
  co_return freed;
}

rpc::Task<Result<>> TrashKeeper::round() {
  auto expired = co_await expire(true, 0);
  if (!expired) co_return std::unexpected(std::move(expired.error()));
  if (expired->files > 0) log_info("trash_expired", "files={} bytes={}", expired->files, expired->bytes);
  if (!cluster_.space().scarce) co_return Result<>{};
  const Deadline deadline = Deadline::after(runtime_.clock(), std::chrono::seconds(10));
  // What was given up before may be enough, once its space is free.
  auto purged = co_await cluster_.purged(deadline);
  if (!purged && purged.error().code() == Code::kTimeout) co_return Result<>{};
  if (!purged) co_return std::unexpected(std::move(purged.error()));
  if (!cluster_.space().scarce) co_return Result<>{};
  auto reclaimed = co_await reclaim(0, deadline);
  // A server that is slow to purge is waited for in the next round.
  if (!reclaimed && reclaimed.error().code() != Code::kTimeout)
    co_return std::unexpected(std::move(reclaimed.error()));
  co_return Result<>{};
}

rpc::Task<> TrashKeeper::run() {
  auto over = co_await arbiter_->grace_over(Deadline::never());
  if (!over) co_return;
  for (;;) {
    auto slept = co_await rpc::sleep_for(runtime_, kRound);
    if (!slept) co_return;
    auto done = co_await round();
    if (!done && done.error().code() == Code::kCancelled) co_return;
    if (!done) log_warn("trash_not_emptied", "error={}", log_quote(done.error().to_string()));
  }
}

}  // namespace cairn::meta
