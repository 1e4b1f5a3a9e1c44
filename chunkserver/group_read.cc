// Reads of clients, and of whole chunks from other members.
#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/group.h"
#include "chunkserver/wire.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kDirtyWait = std::chrono::milliseconds(20);
constexpr int kRepairsMax = 2;  // a block may go bad while another one is repaired, but not for ever

}  // namespace

rpc::Task<Result<ReadOutcome>> Group::read(ChunkId chunk, Epoch epoch, std::uint32_t offset,
                                           std::uint32_t length, Deadline deadline) {
  const BlockRange range{
      offset / kBlockSize,
      static_cast<std::uint32_t>((std::uint64_t{offset} + length + kBlockSize - 1) / kBlockSize)};
  for (int repairs = 0;;) {
    auto admitted = co_await admit(epoch, Need::kRead, deadline);
    if (!admitted) co_return fail(std::move(admitted.error()));
    if (OpPtr op = active_op(chunk)) {
      // Nobody but the tail can tell whether it is committed; the tail waits for a joiner, and has nobody to
      // send to.
      const auto& successor = admitted->place.successor;
      const bool tail = !successor || !successor->in_sync;
      const Deadline brief = Deadline::after(env_.runtime.clock(), kDirtyWait);
      auto waited = co_await op->done.wait(tail ? deadline : std::min(deadline, brief));
      if (!waited)
        co_return fail(Code::kBusyPending,
                       fmt::format("chunk {}: a write is pending: ask the tail", to_string(chunk)));
      continue;
    }
    {
      std::lock_guard lock(mutex_);
      if (aside_locked(chunk)) co_return fail(Code::kNotFound, "no chunk " + to_string(chunk));
    }
    Target::Work<disk::ReadResult> work = [pool = id_.pool, chunk, offset,
                                           length](disk::ChunkEngine& engine) {
      return engine.read(pool, chunk, offset, length);
    };
    auto content = co_await target_.run<disk::ReadResult>(std::move(work));
    // The epoch, the lease, or the chunk may have changed while the disk was busy.
    if (auto refused = refusal(view(), epoch, Need::kRead)) co_return fail(std::move(*refused));
    if (OpPtr op = active_op(chunk)) {
      if (!content || content->info.version >= op->spec.version) continue;
    }
    if (content) {
      if (target_.damage().any()) target_.damage().whole(chunk, range);
      env_.counters.reads.fetch_add(1, std::memory_order_relaxed);
      env_.counters.read_bytes.fetch_add(content->data.size(), std::memory_order_relaxed);
      co_return ReadOutcome{std::move(*content)};
    }
    if (content.error().code() != Code::kCorrupt || repairs++ == kRepairsMax)
      co_return fail(std::move(content.error()));
    auto mended = co_await repair(chunk, range, false);
    if (!mended) co_return fail(std::move(mended.error()));
  }
}

rpc::Task<Result<FetchedChunk>> Group::fetch_from(GroupMember member, ChunkId chunk, Epoch epoch,
                                                  Deadline deadline) {
  rpc::OutMessage request;
  auto body = request.body<schema::FetchRequest>();
  set_chunk(body.initChunk(), chunk);
  set_group(body.initGroup(), id_);
  body.setEpoch(epoch.value());
  body.setTarget(member.target.value());
  auto reply = co_await env_.peers.call<rpc::method::Fetch>(member.server, Peers::Link::kBulk,
                                                            std::move(request), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  FetchedChunk fetched;
  try {
    fetched.info = info_of((*reply)->getEntry(), id_.pool);
    fetched.checksums = checksums_of((*reply)->getChecksums());
  } catch (const kj::Exception& e) {
    co_return fail(Code::kProtocol, std::string("Fetch: malformed reply: ") + e.getDescription().cStr());
  }
  fetched.bytes = reply->take_payload();
  if (fetched.info.chunk != chunk || fetched.bytes.size() != fetched.info.length ||
      (fetched.info.length > 0 && first_bad_block(fetched.bytes.bytes(), fetched.checksums) >= 0))
    co_return fail(Code::kCorrupt, fmt::format("chunk {}: what server {} sent does not match its checksums",
                                               to_string(chunk), to_string(member.server)));
  co_return fetched;
}

}  // namespace cairn::chunkserver
