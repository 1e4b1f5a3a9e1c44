#include "chunkserver/reconciler.h"

#include <fmt/format.h>

#include "chunkserver/chunk_list.h"
#include "chunkserver/copy_in.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {
constexpr Duration kReconcileRetry = std::chrono::milliseconds(100);
constexpr Duration kCopyTimeout = std::chrono::seconds(30);
}  // namespace

bool Reconciler::current(Group& group, const GroupConfig& config) {
  std::lock_guard lock(group.mutex_);
  return group.config_.epoch == config.epoch && group.config_.reconcile && group.reconciling_.has_value();
}

rpc::Task<> Reconciler::run(std::shared_ptr<Group> group, GroupConfig config) {
  auto turn = co_await group->env_.compares.take(1, Deadline::never());
  if (!turn) co_return;
  for (const GroupMember& member : config.members) {
    if (!member.in_sync || member.target == group->target_.id()) continue;
    for (;;) {
      if (!current(*group, config)) co_return;
      auto taken = co_await take_from(group, config, member);
      if (taken) break;
      log_debug("reconcile_waits", "group={} member={} error={}", to_string(group->id_),
                to_string(member.target), log_quote(taken.error().to_string()));
      auto slept = co_await rpc::sleep_for(group->env_.runtime, kReconcileRetry);
      if (!slept) co_return;
    }
  }
  auto synced = co_await group->target_.sync();
  if (!synced || !current(*group, config)) co_return;
  std::uint64_t bytes = 0;
  {
    std::lock_guard lock(group->mutex_);
    group->reconciling_->state = GroupProgress::State::kReconciled;
    bytes = group->reconciling_->bytes_copied;
  }
  log_info("reconciled", "group={} target={} epoch={} bytes={}", to_string(group->id_),
           to_string(group->target_.id()), to_string(config.epoch), bytes);
  group->env_.heartbeat_now();
}

rpc::Task<Result<>> Reconciler::take_from(std::shared_ptr<Group> group, GroupConfig config,
                                          GroupMember member) {
  std::optional<ChunkId> after;
  for (bool done = false; !done;) {
    auto page = co_await list_chunks(group->env_, member, group->id_, config.slots, config.epoch, after);
    if (!page) co_return fail(std::move(page.error()));
    done = page->done;
    if (!page->chunks.empty()) after = page->chunks.back().chunk;
    using Chunks = std::vector<ChunkId>;
    Target::Work<Chunks> work =
        [group, chunks = std::move(page->chunks)](disk::ChunkEngine& engine) -> Result<Chunks> {
      Chunks higher;
      for (const disk::ChunkInfo& theirs : chunks) {
        auto own = engine.stat(theirs.pool, theirs.chunk);
        if (!own && own.error().code() != Code::kNotFound) return fail(std::move(own.error()));
        if (!own || own->version < theirs.version) higher.push_back(theirs.chunk);
        if (own && own->version == theirs.version && own->digest != theirs.digest)
          log_error("replica_differs", "group={} chunk={} version={} here={} there={}", to_string(group->id_),
                    to_string(theirs.chunk), to_string(theirs.version), to_string(own->digest),
                    to_string(theirs.digest));
      }
      return higher;
    };
    auto higher = co_await group->target_.run<Chunks>(std::move(work));
    if (!higher) co_return fail(std::move(higher.error()));
    for (const ChunkId& chunk : *higher) {
      auto taken = co_await take_chunk(group, config.epoch, member, chunk);
      if (!taken) co_return fail(std::move(taken.error()));
    }
  }
  co_return Result<>();
}

rpc::Task<Result<>> Reconciler::take_chunk(std::shared_ptr<Group> group, Epoch epoch, GroupMember member,
                                           ChunkId chunk) {
  if (group->env_.purged.contains(chunk.data)) co_return Result<>();
  auto hold = co_await group->locks_.acquire(chunk, Deadline::never());
  if (!hold) co_return fail(std::move(hold.error()));
  const Deadline deadline = Deadline::after(group->env_.runtime.clock(), kCopyTimeout);
  auto fetched = co_await group->fetch_from(member, chunk, epoch, deadline);
  if (!fetched && fetched.error().code() == Code::kNotFound) co_return Result<>();
  if (!fetched) co_return fail(std::move(fetched.error()));
  auto copy = std::make_shared<FetchedChunk>(std::move(*fetched));
  Target::Work<Installed> work = [copy](disk::ChunkEngine& engine) { return install_copy(engine, *copy); };
  auto installed = co_await group->target_.run<Installed>(std::move(work));
  if (!installed) co_return fail(std::move(installed.error()));
  std::lock_guard lock(group->mutex_);
  if (group->reconciling_) group->reconciling_->bytes_copied += copy->info.length;
  co_return Result<>();
}

}  // namespace cairn::chunkserver
