#include "chunkserver/joiner.h"

#include <fmt/format.h>

#include "chunkserver/chunk_list.h"
#include "chunkserver/copy_in.h"
#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::uint64_t kLanes = 6;  // chunks copied at once for one group
constexpr Duration kIdle = std::chrono::milliseconds(20);
constexpr Duration kJoinRetry = std::chrono::milliseconds(100);
constexpr Duration kJoinRetryFull = std::chrono::seconds(1);
constexpr Duration kJoinRetryDamaged = std::chrono::seconds(5);  // the source has to repair it first
constexpr Duration kCopyTimeout = std::chrono::seconds(30);

bool cancelled(const Result<>& waited) {
  return !waited && waited.error().code() == Code::kCancelled;
}

// Chunks of this group on the own disk, after `after`, up to and with `last` (nullopt: to the end).
rpc::Task<Result<std::vector<disk::ChunkInfo>>> own_chunks(Target& target, GroupId group, std::uint32_t slots,
                                                           std::optional<ChunkId> after,
                                                           std::optional<ChunkId> last) {
  using Infos = std::vector<disk::ChunkInfo>;
  Target::Work<Infos> work = [group, slots, after, last](disk::ChunkEngine& engine) -> Result<Infos> {
    Infos out;
    TRYV(engine.for_each(group, slots, after, [&](const disk::ChunkInfo& info) {
      if (last && HashOrder(info.chunk) > HashOrder(*last)) return false;
      out.push_back(info);
      return true;
    }));
    return out;
  };
  co_return co_await target.run<Infos>(std::move(work));
}

}  // namespace

bool Group::joins(const std::shared_ptr<JoinLedger>& ledger) const {
  std::lock_guard lock(mutex_);
  return ledger_ == ledger;
}

rpc::Task<> Joiner::run(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger) {
  rpc::Runtime& runtime = group->env_.runtime;
  const TimePoint began = runtime.clock().now();
  {
    auto turn = co_await group->env_.compares.take(1, Deadline::never());
    if (!turn) co_return;
    Duration pause = std::chrono::milliseconds(5);
    for (;;) {
      auto walked = co_await walk(group, ledger);
      if (walked) break;
      if (!group->joins(ledger)) co_return;
      log_debug("compare_waits", "group={} error={}", to_string(group->id_),
                log_quote(walked.error().to_string()));
      // Mostly the tail has not heard of the epoch yet.
      auto slept = co_await rpc::sleep_for(runtime, pause);
      if (cancelled(slept)) co_return;
      pause = std::min(2 * pause, kJoinRetry);
    }
  }
  auto lanes = std::make_shared<Quota>(runtime, kLanes);
  for (;;) {
    std::optional<ChunkId> chunk;
    bool all = false;
    {
      std::lock_guard lock(group->mutex_);
      if (group->ledger_ != ledger) co_return;
      chunk = ledger->next();
      all = ledger->complete();
    }
    if (chunk) {
      auto lane = co_await lanes->take(1, Deadline::never());
      if (!lane) co_return;
      group->env_.tasks.spawn(runtime.executor(), copy_one(group, ledger, *chunk, lanes, std::move(*lane)));
      continue;
    }
    if (all) {
      const bool done = co_await complete(group, ledger);
      if (done) break;
    }
    auto slept = co_await rpc::sleep_for(runtime, kIdle);
    if (cancelled(slept)) co_return;
  }
  const double seconds = static_cast<double>((runtime.clock().now() - began).count()) / 1e9;
  log_info("caught_up", "group={} target={} chunks={} bytes={} seconds={:.3f} aside={}",
           to_string(group->id_), to_string(group->target_.id()), ledger->chunks_copied, ledger->bytes_copied,
           seconds, group->aside_count());
  group->env_.heartbeat_now();
}

rpc::Task<Result<ChunkPage>> Joiner::tail_page(std::shared_ptr<Group> group, std::optional<ChunkId> after) {
  const GroupView view = group->view();
  if (!view.place.source) co_return fail(Code::kNotServing, "no in-sync member to compare with");
  const GroupMember source = *view.place.source;
  auto page = co_await list_chunks(group->env_, source, group->id_, view.slots, view.epoch, after);
  co_return page;
}

rpc::Task<Result<>> Joiner::walk(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger) {
  {
    std::lock_guard lock(group->mutex_);
    if (group->ledger_ == ledger) group->aside_.clear();
  }
  std::optional<ChunkId> after;
  Epoch reconciled_at;
  for (bool done = false; !done;) {
    auto page = co_await tail_page(group, after);
    if (!page) co_return fail(std::move(page.error()));
    done = page->done;
    reconciled_at = std::max(reconciled_at, page->reconciled_at);
    std::optional<ChunkId> last;
    if (!page->chunks.empty()) last = page->chunks.back().chunk;
    const std::uint32_t slots = group->view().slots;
    auto own = co_await own_chunks(group->target_, group->id_, slots, after, done ? std::nullopt : last);
    if (!own) co_return fail(std::move(own.error()));
    std::lock_guard lock(group->mutex_);
    if (group->ledger_ != ledger) co_return fail(Code::kCancelled, "another epoch");
    compare(*group, *ledger, page->chunks, *own);
    if (last) ledger->walked_to(*last);
    after = last;
  }
  std::vector<ChunkId> aside;
  {
    std::lock_guard lock(group->mutex_);
    if (group->ledger_ != ledger) co_return fail(Code::kCancelled, "another epoch");
    ledger->walked_all();
    group->reconciled_at_ = std::max(group->reconciled_at_, reconciled_at);
    aside.assign(group->aside_.begin(), group->aside_.end());
  }
  if (!aside.empty())
    log_warn("unknown_chunks", "group={} target={} count={} first={}", to_string(group->id_),
             to_string(group->target_.id()), aside.size(), to_string(aside.front()));
  Target::Work<void> keep = [group, aside = std::move(aside),
                             reconciled_at](disk::ChunkEngine& engine) -> Result<> {
    TRYV(group->memory_.remember(engine, {{group->id_, {Epoch(), reconciled_at}}}));
    TRY(auto before, engine.get_value(group->aside_key()));
    if (aside.empty() && !before) return {};
    return engine.set_value(group->aside_key(), Group::encode_chunks(aside));
  };
  co_return co_await group->target_.run_durable<void>(std::move(keep));
}

// Merges a page of the tail's list with the own chunks of the same range. The group's mutex is held.
void Joiner::compare(Group& group, JoinLedger& ledger, const Infos& theirs, const Infos& own) {
  auto mine = own.begin();
  auto only_mine = [&](const disk::ChunkInfo& info) {
    // A record of absence says what the tail says: there is none. A write on its way brings its own
    // knowledge.
    if (info.state == disk::ChunkState::kAbsent || ledger.holds(info.chunk) ||
        group.active_.contains(info.chunk))
      return;
    group.aside_.insert(info.chunk);
  };
  for (const disk::ChunkInfo& info : theirs) {
    while (mine != own.end() && HashOrder(mine->chunk) < HashOrder(info.chunk)) only_mine(*mine++);
    const bool here = mine != own.end() && mine->chunk == info.chunk;
    const bool same = here && mine->version == info.version && mine->state == info.state &&
                      mine->length == info.length && mine->digest == info.digest;
    if (!same && !ledger.holds(info.chunk)) ledger.missing(info.chunk, info.length);
    if (here) ++mine;
  }
  while (mine != own.end()) only_mine(*mine++);
}

rpc::Task<> Joiner::copy_one(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger, ChunkId chunk,
                             std::shared_ptr<Quota> lanes, Quota::Grant lane) {
  // `lane` is given back when this ends; `lanes` lives for it.
  const auto lane_kept = std::move(lane);
  static_cast<void>(lanes);
  rpc::Runtime& runtime = group->env_.runtime;
  const TimePoint began = runtime.clock().now();
  auto copied = co_await group->copy_chunk(chunk, ledger);
  Duration pause{0};
  {
    std::lock_guard lock(group->mutex_);
    if (group->ledger_ != ledger) co_return;
    if (copied) {
      const bool last_copy = group->place_.in_sync <= 1;
      pause = group->env_.pacer.pause_after(runtime.clock().now() - began, last_copy);
      if (ledger->state == JoinLedger::State::kFailed) ledger->state = JoinLedger::State::kCopying;
    } else {
      const bool full = copied.error().code() == Code::kNoSpace;
      if (full) ledger->state = JoinLedger::State::kFailed;
      const bool damaged = copied.error().code() == Code::kCorrupt;
      pause = full ? kJoinRetryFull : damaged ? kJoinRetryDamaged : kJoinRetry;
    }
  }
  if (!copied)
    log_debug("copy_waits", "group={} chunk={} error={}", to_string(group->id_), to_string(chunk),
              log_quote(copied.error().to_string()));
  if (pause.count() > 0) {
    auto slept = co_await rpc::sleep_for(runtime, pause);
    if (cancelled(slept)) co_return;
  }
  std::lock_guard lock(group->mutex_);
  if (!copied) ledger->try_again(chunk);
}

rpc::Task<Result<>> Group::copy_chunk(ChunkId chunk, std::shared_ptr<JoinLedger> ledger) {
  constexpr int kAttempts = 4;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Version own_higher;
    GroupView v;
    {
      auto hold = co_await locks_.acquire(chunk, Deadline::never());
      if (!hold) co_return fail(std::move(hold.error()));
      {
        std::lock_guard lock(mutex_);
        if (ledger_ != ledger) co_return fail(Code::kCancelled, "another epoch");
        if (ledger->holds(chunk)) co_return Result<>();
        if (env_.purged.contains(chunk.data)) {
          ledger->held(chunk);
          co_return Result<>();
        }
        v = view_locked();
      }
      if (!v.place.source) co_return fail(Code::kNotServing, "no in-sync member to copy from");
      auto grant = co_await env_.copies.take(1, Deadline::never());
      if (!grant) co_return fail(std::move(grant.error()));
      auto memory = co_await env_.copy_bytes.take(kDefaultChunkSize, Deadline::never());
      if (!memory) co_return fail(std::move(memory.error()));
      const GroupMember source = *v.place.source;
      const Deadline deadline = Deadline::after(env_.runtime.clock(), kCopyTimeout);
      auto fetched = co_await fetch_from(source, chunk, v.epoch, deadline);
      if (!fetched && fetched.error().code() != Code::kNotFound) co_return fail(std::move(fetched.error()));
      if (!fetched) {
        // Purged there since it was listed; the same order comes here.
        std::lock_guard lock(mutex_);
        if (ledger_ == ledger) ledger->held(chunk);
        co_return Result<>();
      }
      auto copy = std::make_shared<FetchedChunk>(std::move(*fetched));
      Target::Work<Installed> work = [copy,
                                      &purged = env_.purged](disk::ChunkEngine& engine) -> Result<Installed> {
        if (purged.contains(copy->info.chunk.data)) return Installed{true, copy->info.version};
        return install_copy(engine, *copy);
      };
      auto installed = co_await target_.run<Installed>(std::move(work));
      if (!installed) co_return fail(std::move(installed.error()));
      if (installed->done) {
        target_.wrote(copy->info.length);
        env_.counters.copied_chunks.fetch_add(1);
        env_.counters.copied_bytes.fetch_add(copy->info.length);
        std::lock_guard lock(mutex_);
        if (ledger_ != ledger) co_return fail(Code::kCancelled, "another epoch");
        ledger->held(chunk);
        ledger->chunks_copied += 1;
        ledger->bytes_copied += copy->info.length;
        co_return Result<>();
      }
      own_higher = installed->own;
    }
    // The lock is given up: the new version arrives here as a hop like any other.
    GroupMember head;
    {
      std::lock_guard lock(mutex_);
      head = config_.members.front();
    }
    rpc::OutMessage request;
    auto body = request.body<schema::ReversionRequest>();
    set_chunk(body.initChunk(), chunk);
    set_group(body.initGroup(), id_);
    body.setEpoch(v.epoch.value());
    set_version(body.initAbove(), own_higher);
    body.setTarget(head.target.value());
    const Deadline deadline = Deadline::after(env_.runtime.clock(), kCopyTimeout);
    auto reversioned = co_await env_.peers.call<rpc::method::Reversion>(head.server, Peers::Link::kBulk,
                                                                        std::move(request), deadline);
    if (!reversioned) co_return fail(std::move(reversioned.error()));
  }
  co_return fail(Code::kStale, fmt::format("chunk {}: versions of the chain stay below the one stored here",
                                           to_string(chunk)));
}

// All copies are in: makes them durable, then says so. False: something went missing meanwhile.
rpc::Task<bool> Joiner::complete(std::shared_ptr<Group> group, std::shared_ptr<JoinLedger> ledger) {
  auto synced = co_await group->target_.sync();
  std::lock_guard lock(group->mutex_);
  if (!synced || group->ledger_ != ledger || !ledger->complete()) co_return false;
  ledger->state = JoinLedger::State::kCaughtUp;
  co_return true;
}

}  // namespace cairn::chunkserver
