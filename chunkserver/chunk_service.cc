#include "chunkserver/chunk_service.h"

#include "chunkserver/sync_batch.h"
#include "chunkserver/wire.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kRequestMax = std::chrono::seconds(60);
constexpr unsigned kSyncItemsMax = 65536;

}  // namespace

ChunkService::ChunkService(GroupEnv& env, const GroupTable& groups, std::vector<Target*> targets,
                           ServerId server, Quota& write_bytes, LatencyMeter& latency)
    : env_(env),
      groups_(groups),
      targets_(std::move(targets)),
      server_(server),
      write_bytes_(write_bytes),
      latency_(latency) {}

Deadline ChunkService::limited(Deadline deadline) const {
  return std::min(deadline, Deadline::after(env_.runtime.clock(), kRequestMax));
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::handle(rpc::Request request) {
  switch (request.method) {
    case rpc::method::Write::kNumber:
    case rpc::method::Read::kNumber:
    case rpc::method::Sync::kNumber:
      return handle_client(std::move(request));
    case rpc::method::Forward::kNumber:
      return forward(std::move(request));
    case rpc::method::ListChunks::kNumber:
      return list_chunks(std::move(request));
    case rpc::method::Fetch::kNumber:
      return fetch(std::move(request));
    case rpc::method::Reversion::kNumber:
      return reversion(std::move(request));
    default:
      return other(std::move(request));
  }
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::other(rpc::Request request) {
  if (request.method == rpc::method::ChunkserverStatus::kNumber) co_return status();
  co_return fail(Code::kUnimplemented,
                 "a chunkserver does not serve " + std::string(rpc::method_name(request.method)));
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::handle_client(rpc::Request request) {
  if (refusing_.load(std::memory_order_acquire))
    co_return fail(Code::kNotServing, "this chunkserver is stopping: ask another member");
  struct UnderWay {
    explicit UnderWay(std::atomic<std::uint64_t>& count) : count(count) { count.fetch_add(1); }
    ~UnderWay() { count.fetch_sub(1); }
    std::atomic<std::uint64_t>& count;
  } under_way(under_way_);
  const TimePoint began = env_.runtime.clock().now();
  const std::uint16_t method = request.method;
  Result<rpc::OutMessage> reply = fail(Code::kInternal, "not handled");
  if (method == rpc::method::Write::kNumber)
    reply = co_await write(std::move(request));
  else if (method == rpc::method::Read::kNumber)
    reply = co_await read(std::move(request));
  else
    reply = co_await sync(std::move(request));
  if (reply && method != rpc::method::Sync::kNumber) latency_.add(env_.runtime.clock().now() - began);
  co_return reply;
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::write(rpc::Request request) {
  const auto body = request.body<rpc::method::Write>();
  const TargetId target(body.getContext().getTarget());
  auto spec = write_spec_of(body, request.message.payload().size());
  if (!spec) co_return fail(std::move(spec.error()));
  const Deadline deadline = limited(request.deadline);
  auto group = groups_.find(spec->pool, spec->chunk, target, GroupTable::Prefer::kHead);
  if (!group) {
    env_.heartbeat_now();
    co_return fail(std::move(group.error()));
  }
  if (spec->kind == WriteKind::kReversion)
    co_return fail(Code::kInvalidArgument, "a client cannot ask for a new version without a change");
  auto memory = co_await write_bytes_.take(request.message.payload().size(), deadline);
  if (!memory) co_return fail(Code::kOverloaded, "too many bytes are being written");
  rpc::Buffer payload = request.message.take_payload();
  auto outcome = co_await (*group)->write(std::move(*spec), std::move(payload), deadline);
  if (!outcome) co_return fail(std::move(outcome.error()));
  co_return write_reply(*outcome);
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::read(rpc::Request request) {
  const auto body = request.body<rpc::method::Read>();
  const auto context = body.getContext();
  const ChunkId chunk = chunk_of(context.getChunk());
  const PoolId pool(context.getPool());
  const Epoch epoch(context.getEpoch());
  const SessionId session(context.getSession());
  const std::uint32_t offset = body.getOffset();
  const std::uint32_t length = std::min<std::uint32_t>(body.getLength(), rpc::kPayloadMax - 2 * kBlockSize);
  auto group = groups_.find(pool, chunk, TargetId(context.getTarget()), GroupTable::Prefer::kInSync);
  if (!group) {
    env_.heartbeat_now();
    co_return fail(std::move(group.error()));
  }
  if (env_.sessions.ended(session))
    co_return fail(Code::kSessionEnded, "session " + to_string(session) + " has ended: open a new one");
  auto outcome = co_await (*group)->read(chunk, epoch, offset, length, limited(request.deadline));
  if (!outcome) co_return fail(std::move(outcome.error()));
  disk::ReadResult& content = outcome->content;
  rpc::OutMessage reply;
  auto to = reply.body<schema::ReadReply>();
  set_version(to.initVersion(), content.info.version);
  to.setAlignedOffset(content.aligned_offset);
  to.setChunkLength(content.info.length);
  auto checksums = to.initChecksums(static_cast<unsigned>(content.checksums.size()));
  for (unsigned i = 0; i < content.checksums.size(); ++i) checksums.set(i, content.checksums[i]);
  if (!content.data.empty()) {
    reply.payload.pieces.push_back(rpc::Buffer::take(std::move(content.data)));
    reply.payload.self_checked = true;
  }
  co_return reply;
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::sync(rpc::Request request) {
  const auto body = request.body<rpc::method::Sync>();
  if (body.getChunks().size() > kSyncItemsMax)
    co_return fail(Code::kInvalidArgument, "sync: too many chunks in one request");
  std::vector<SyncItem> items;
  for (auto item : body.getChunks())
    items.push_back({chunk_of(item.getChunk()), PoolId(item.getPool()), Epoch(item.getEpoch()),
                     version_of(item.getVersion()), TargetId(item.getTarget())});
  const SessionId session(body.getSession());
  auto batch =
      std::make_shared<SyncBatch>(env_, groups_, std::move(items), session, limited(request.deadline));
  const std::vector<SyncResult> results = co_await SyncBatch::run(batch);
  rpc::OutMessage reply;
  auto to = reply.body<schema::SyncReply>().initResults(static_cast<unsigned>(results.size()));
  for (unsigned i = 0; i < results.size(); ++i) {
    to[i].setCode(static_cast<std::uint16_t>(results[i].code));
    to[i].setEpoch(results[i].epoch.value());
  }
  co_return reply;
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::forward(rpc::Request request) {
  const auto body = request.body<rpc::method::Forward>();
  const TargetId target(body.getContext().getTarget());
  auto spec = write_spec_of(body, request.message.payload().size());
  if (!spec) co_return fail(std::move(spec.error()));
  auto group = groups_.find(spec->pool, spec->chunk, target, GroupTable::Prefer::kInSync);
  if (!group) {
    env_.heartbeat_now();
    co_return fail(std::move(group.error()));
  }
  const Deadline deadline = limited(request.deadline);
  rpc::Buffer payload = request.message.take_payload();
  auto outcome = co_await (*group)->forward(std::move(*spec), std::move(payload), deadline);
  if (!outcome) co_return fail(std::move(outcome.error()));
  co_return write_reply(*outcome);
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::list_chunks(rpc::Request request) {
  const auto body = request.body<rpc::method::ListChunks>();
  const std::uint32_t slots = body.getSlots();
  if (slots == 0 || (slots & (slots - 1)) != 0)
    co_return fail(Code::kInvalidArgument, "list: the number of slots is not a power of two");
  const Epoch epoch(body.getEpoch());
  const std::uint32_t limit = std::max<std::uint32_t>(body.getLimit(), 1);
  std::optional<ChunkId> after;
  if (body.getHasAfter()) after = chunk_of(body.getAfter().getChunk());
  auto group =
      groups_.find(group_of(body.getGroup()), TargetId(body.getTarget()), GroupTable::Prefer::kInSync);
  if (!group) co_return fail(std::move(group.error()));
  if (body.getSync()) {
    auto synced = co_await (*group)->target().sync();
    if (!synced) co_return fail(std::move(synced.error()));
  }
  auto page = co_await (*group)->list(epoch, slots, after, limit);
  if (!page) co_return fail(std::move(page.error()));
  rpc::OutMessage reply;
  auto to = reply.body<schema::ListChunksReply>();
  auto chunks = to.initChunks(static_cast<unsigned>(page->chunks.size()));
  for (unsigned i = 0; i < page->chunks.size(); ++i) set_entry(chunks[i], page->chunks[i]);
  to.setDone(page->done);
  to.setReconciledAt(page->reconciled_at.value());
  co_return reply;
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::fetch(rpc::Request request) {
  const auto body = request.body<rpc::method::Fetch>();
  const ChunkId chunk = chunk_of(body.getChunk());
  const Epoch epoch(body.getEpoch());
  auto group =
      groups_.find(group_of(body.getGroup()), TargetId(body.getTarget()), GroupTable::Prefer::kInSync);
  if (!group) co_return fail(std::move(group.error()));
  auto fetched = co_await (*group)->fetch(chunk, epoch, body.getOffset(), body.getLength());
  if (!fetched) co_return fail(std::move(fetched.error()));
  rpc::OutMessage reply;
  auto to = reply.body<schema::FetchReply>();
  set_entry(to.initEntry(), fetched->info);
  auto checksums = to.initChecksums(static_cast<unsigned>(fetched->checksums.size()));
  for (unsigned i = 0; i < fetched->checksums.size(); ++i) checksums.set(i, fetched->checksums[i]);
  if (fetched->bytes.size() > 0) {
    reply.payload.pieces.push_back(std::move(fetched->bytes));
    reply.payload.self_checked = true;
  }
  co_return reply;
}

rpc::Task<Result<rpc::OutMessage>> ChunkService::reversion(rpc::Request request) {
  const auto body = request.body<rpc::method::Reversion>();
  const ChunkId chunk = chunk_of(body.getChunk());
  const Epoch epoch(body.getEpoch());
  const Version above = version_of(body.getAbove());
  auto group = groups_.find(group_of(body.getGroup()), TargetId(body.getTarget()), GroupTable::Prefer::kHead);
  if (!group) co_return fail(std::move(group.error()));
  auto outcome = co_await (*group)->reversion(chunk, epoch, above, limited(request.deadline));
  if (!outcome) co_return fail(std::move(outcome.error()));
  co_return write_reply(*outcome);
}

Result<rpc::OutMessage> ChunkService::status() const {
  rpc::OutMessage reply;
  auto to = reply.body<schema::ChunkserverStatusReply>();
  to.setServer(server_.value());
  auto list = to.initTargets(static_cast<unsigned>(targets_.size()));
  for (unsigned i = 0; i < targets_.size(); ++i) {
    const disk::Usage usage = targets_[i]->usage();
    list[i].setId(targets_[i]->id().value());
    list[i].setPath(targets_[i]->path());
    list[i].setState(targets_[i]->failed() ? "failed" : "ok");
    list[i].setCapacity(usage.capacity_bytes);
    list[i].setUsed(usage.used_bytes);
    list[i].setChunks(usage.chunks);
  }
  to.setCorruptFound(env_.counters.corrupt_found.load());
  to.setCorruptRepaired(env_.counters.corrupt_repaired.load());
  return reply;
}

}  // namespace cairn::chunkserver
