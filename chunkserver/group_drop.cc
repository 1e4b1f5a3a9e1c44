// Removal of what a target still has of a group that it left.
//
// Why every in-sync member is asked, though the metadata server counted them: the count says that they have
// what was acknowledged; the lists say that they have *this chunk*, and that it is on their disks. So a chunk
// that nobody else knows (a bug, or an operator who accepted a loss) is not deleted on inference, here
// either.
#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/chunk_list.h"
#include "chunkserver/group.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr std::size_t kDropPage = 512;
constexpr std::size_t kDropBatch = 64;  // a configuration waits for no more

}  // namespace

bool Group::may_drop(const GroupConfig& config, Epoch epoch) const {
  return config.epoch == epoch && !config.barrier && !config.reconcile && !config.members.empty() &&
         std::ranges::all_of(config.members, [&](const GroupMember& member) {
           return member.in_sync && member.target != target_.id();
         });
}

rpc::Task<Result<Group::Dropped>> Group::drop(Epoch epoch) {
  GroupConfig config;
  {
    std::lock_guard lock(mutex_);
    config = config_;
  }
  if (!may_drop(config, epoch))
    co_return fail(Code::kWrongEpoch, fmt::format("group {} is not whole without target {} in epoch {}",
                                                  to_string(id_), to_string(target_.id()), to_string(epoch)));
  Dropped dropped;
  auto kept = std::make_shared<std::vector<ChunkId>>();
  std::optional<ChunkId> after;
  for (;;) {
    using Infos = std::vector<disk::ChunkInfo>;
    Target::Work<Infos> work = [group = id_, slots = config.slots,
                                after](disk::ChunkEngine& engine) -> Result<Infos> {
      Infos infos;
      TRYV(engine.for_each(group, slots, after, [&](const disk::ChunkInfo& info) {
        infos.push_back(info);
        return infos.size() < kDropPage;
      }));
      return infos;
    };
    auto own = co_await target_.run<Infos>(std::move(work));
    if (!own) co_return fail(std::move(own.error()));
    if (own->empty()) break;
    const ChunkId last = own->back().chunk;
    const std::uint64_t here = own->size() + kept->size();
    auto done = co_await drop_page(config, std::move(*own), after, kept);
    if (!done) co_return fail(std::move(done.error()));
    dropped.chunks += here - kept->size();
    after = last;
  }
  dropped.kept = kept->size();
  Target::Work<bool> keep = [self = shared_from_this(), kept,
                             epoch](disk::ChunkEngine& engine) -> Result<bool> {  // whether it is news
    std::vector<ChunkId> all;
    {
      std::lock_guard lock(self->mutex_);
      if (self->config_.epoch != epoch) return fail(Code::kWrongEpoch, "another epoch");
      const std::unordered_set<ChunkId> now(kept->begin(), kept->end());
      if (now == self->aside_) return false;
      self->aside_ = now;
      all = *kept;
    }
    TRYV(engine.set_value(self->aside_key(), encode_chunks(all)));
    return true;
  };
  auto remembered = co_await target_.run_durable<bool>(std::move(keep));
  if (!remembered) co_return fail(std::move(remembered.error()));
  if (!kept->empty() && *remembered)
    log_warn("unknown_chunks", "group={} target={} count={} first={}", to_string(id_),
             to_string(target_.id()), kept->size(), to_string(kept->front()));
  co_return dropped;
}

// `own`: what is here after `after`. What not every member lists is added to `kept`; the rest goes.
rpc::Task<Result<>> Group::drop_page(GroupConfig config, std::vector<disk::ChunkInfo> own,
                                     std::optional<ChunkId> after,
                                     std::shared_ptr<std::vector<ChunkId>> kept) {
  const HashOrder end(own.back().chunk);
  std::unordered_map<ChunkId, std::size_t> listed;  // by how many members
  for (const GroupMember& member : config.members) {
    std::optional<ChunkId> cursor = after;
    for (bool more = true; more;) {
      // Once for each member: what it lists later is not older than what this sync covers.
      const bool first = !after && !cursor;
      auto page = co_await list_chunks(env_, member, id_, config.slots, config.epoch, cursor,
                                       first ? ListSync::kFirst : ListSync::kNo);
      if (!page) co_return fail(std::move(page.error()));
      for (const disk::ChunkInfo& info : page->chunks) ++listed[info.chunk];
      more = !page->done && HashOrder(page->chunks.back().chunk) < end;
      if (!page->chunks.empty()) cursor = page->chunks.back().chunk;
    }
  }
  std::vector<ChunkId> going;
  for (const disk::ChunkInfo& info : own) {
    auto at = listed.find(info.chunk);
    const bool everywhere = at != listed.end() && at->second == config.members.size();
    if (everywhere || info.state == disk::ChunkState::kAbsent)
      going.push_back(info.chunk);
    else
      kept->push_back(info.chunk);
  }
  for (std::size_t from = 0; from < going.size(); from += kDropBatch) {
    const auto begin = going.begin() + static_cast<std::ptrdiff_t>(from);
    const auto count = static_cast<std::ptrdiff_t>(std::min(kDropBatch, going.size() - from));
    std::vector<ChunkId> batch(begin, begin + count);
    const TimePoint began = env_.runtime.clock().now();
    auto gone = co_await purge_left_over(config.epoch, std::move(batch));
    if (!gone) co_return fail(std::move(gone.error()));
    const Duration pause = env_.pacer.pause_after(env_.runtime.clock().now() - began, false);
    if (pause.count() == 0) continue;
    auto slept = co_await rpc::sleep_for(env_.runtime, pause);
    if (!slept) co_return fail(std::move(slept.error()));
  }
  co_return Result<>();
}

rpc::Task<Result<>> Group::purge_left_over(Epoch epoch, std::vector<ChunkId> chunks) {
  auto done = std::make_shared<rpc::Event>(env_.runtime);
  {
    std::lock_guard lock(mutex_);
    if (drops_stopped_ || !may_drop(config_, epoch) || dropping_)
      co_return fail(Code::kWrongEpoch, "group " + to_string(id_) + " gets another configuration");
    dropping_ = done;
  }
  Target::Work<void> work = [pool = id_.pool,
                             chunks = std::move(chunks)](disk::ChunkEngine& engine) -> Result<> {
    for (const ChunkId& chunk : chunks) TRYV(engine.purge(pool, chunk));
    return {};
  };
  auto purged = co_await target_.run<void>(std::move(work));
  {
    std::lock_guard lock(mutex_);
    dropping_.reset();
  }
  done->set();
  co_return purged;
}

rpc::Task<> Group::stop_dropping() {
  std::shared_ptr<rpc::Event> going;
  {
    std::lock_guard lock(mutex_);
    drops_stopped_ = true;
    going = dropping_;
  }
  if (!going) co_return;
  auto waited = co_await going->wait(Deadline::never());
  static_cast<void>(waited);  // cancelled: the server stops
}

void Group::review_aside(disk::ChunkEngine& engine) {
  std::vector<ChunkId> aside;
  {
    std::lock_guard lock(mutex_);
    aside.assign(aside_.begin(), aside_.end());
  }
  for (const ChunkId& chunk : aside) {
    auto info = engine.stat(id_.pool, chunk);
    if (!info && info.error().code() == Code::kNotFound) no_longer_aside(engine, chunk);
  }
}

}  // namespace cairn::chunkserver
