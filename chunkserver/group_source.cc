// What a member gives to others: the list of its chunks, and whole chunks.
#include <fmt/format.h>

#include "chunkserver/group.h"

namespace cairn::chunkserver {
namespace {

constexpr std::uint32_t kPageMax = 4096;

}  // namespace

// An in-sync member tells what exists, also while a write is pending: the version goes with the bytes, and a
// joiner gets the hops of that epoch besides.
Result<> Group::may_give(Epoch epoch) const {
  const GroupView v = view();
  if (v.epoch != epoch) return fail(wrong_epoch(epoch, v.epoch));
  if (v.place.role != Role::kInSync)
    return fail(Code::kNotServing, fmt::format("group {}: this member is not in sync", to_string(id_)));
  return {};
}

rpc::Task<Result<ChunkPage>> Group::list(Epoch epoch, std::uint32_t slots, std::optional<ChunkId> after,
                                         std::uint32_t limit) {
  CO_TRYV(may_give(epoch));
  limit = std::min(limit, kPageMax);
  std::unordered_set<ChunkId> aside;
  {
    std::lock_guard lock(mutex_);
    aside = aside_;
  }
  Target::Work<ChunkPage> work = [id = id_, aside = std::move(aside), slots, after,
                                  limit](disk::ChunkEngine& engine) -> Result<ChunkPage> {
    ChunkPage page;
    page.done = true;
    TRYV(engine.for_each(id, slots, after, [&](const disk::ChunkInfo& info) {
      if (aside.contains(info.chunk)) return true;
      page.done = page.chunks.size() < limit;
      if (page.done) page.chunks.push_back(info);
      return page.done;
    }));
    return page;
  };
  auto page = co_await target_.run<ChunkPage>(std::move(work));
  if (!page) co_return fail(std::move(page.error()));
  CO_TRYV(may_give(epoch));
  std::lock_guard lock(mutex_);
  page->reconciled_at = reconciled_at_;
  co_return page;
}

rpc::Task<Result<FetchedChunk>> Group::fetch(ChunkId chunk, Epoch epoch, std::uint32_t offset,
                                             std::uint32_t length) {
  CO_TRYV(may_give(epoch));
  const bool all = length == 0;
  if (offset % kBlockSize != 0 || length % kBlockSize != 0 || length > rpc::kPayloadMax ||
      (all && offset != 0))
    co_return fail(Code::kInvalidArgument, "fetch: not whole blocks");
  {
    std::lock_guard lock(mutex_);
    if (aside_locked(chunk)) co_return fail(Code::kNotFound, "no chunk " + to_string(chunk));
  }
  Target::Work<FetchedChunk> work = [pool = id_.pool, chunk, all, offset,
                                     length](disk::ChunkEngine& engine) -> Result<FetchedChunk> {
    FetchedChunk out;
    auto content = engine.read(pool, chunk, offset, all ? rpc::kPayloadMax : length);
    if (content) {
      out.info = content->info;
      out.checksums = std::move(content->checksums);
      out.bytes = rpc::Buffer::take(std::move(content->data));
      if (all && out.bytes.size() != out.info.length)
        return fail(Code::kRange, fmt::format("chunk {} of {} bytes is too large to be sent",
                                              to_string(chunk), out.info.length));
      return out;
    }
    if (content.error().code() != Code::kNotFound) return fail(std::move(content.error()));
    TRY(out.info, engine.stat(pool, chunk));  // an absent record; kNotFound: none at all
    if (out.info.state == disk::ChunkState::kPresent)
      return fail(Code::kBusyPending, "chunk " + to_string(chunk) + " came back this moment: try again");
    return out;
  };
  auto fetched = co_await target_.run<FetchedChunk>(std::move(work));
  if (!fetched) {
    // Not for a few blocks: who asks for those repairs its own, and the two would set each other going.
    if (fetched.error().code() == Code::kCorrupt && all)
      env_.tasks.spawn(env_.runtime.executor(), repair_later(shared_from_this(), chunk, {}));
    co_return fail(std::move(fetched.error()));
  }
  CO_TRYV(may_give(epoch));
  co_return fetched;
}

}  // namespace cairn::chunkserver
