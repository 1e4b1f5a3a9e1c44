#include "chunkserver/chunk_list.h"

#include "chunkserver/wire.h"

namespace cairn::chunkserver {
namespace {
constexpr std::uint32_t kPage = 1024;
constexpr Duration kTimeout = std::chrono::seconds(30);
}  // namespace

rpc::Task<Result<ChunkPage>> list_chunks(GroupEnv& env, GroupMember member, GroupId group,
                                         std::uint32_t slots, Epoch epoch, std::optional<ChunkId> after,
                                         ListSync sync) {
  rpc::OutMessage request;
  auto body = request.body<schema::ListChunksRequest>();
  set_group(body.initGroup(), group);
  body.setSlots(slots);
  body.setEpoch(epoch.value());
  body.setSync(sync == ListSync::kFirst);
  body.setLimit(kPage);
  body.setTarget(member.target.value());
  if (after) {
    set_chunk(body.initAfter().initChunk(), *after);
    body.setHasAfter(true);
  }
  const Deadline deadline = Deadline::after(env.runtime.clock(), kTimeout);
  auto reply = co_await env.peers.call<rpc::method::ListChunks>(member.server, Peers::Link::kBulk,
                                                                std::move(request), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  ChunkPage page;
  try {
    for (auto entry : (*reply)->getChunks()) page.chunks.push_back(info_of(entry, group.pool));
    page.done = (*reply)->getDone();
    page.reconciled_at = Epoch((*reply)->getReconciledAt());
  } catch (const kj::Exception& e) {
    co_return fail(Code::kProtocol, std::string("ListChunks: malformed reply: ") + e.getDescription().cStr());
  }
  // The cursor must move on, whatever the other side says.
  std::optional<HashOrder> last;
  if (after) last = HashOrder(*after);
  for (const disk::ChunkInfo& info : page.chunks) {
    const HashOrder here(info.chunk);
    if (last && here <= *last) co_return fail(Code::kProtocol, "ListChunks: chunks are not in hash order");
    last = here;
  }
  if (page.chunks.empty() && !page.done)
    co_return fail(Code::kProtocol, "ListChunks: an empty page that is not the last");
  co_return page;
}

}  // namespace cairn::chunkserver
