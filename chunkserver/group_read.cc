// Reads, and repair of what a read finds damaged.
#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/group.h"
#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kDirtyWait = std::chrono::milliseconds(20);
constexpr Duration kRepairWait = std::chrono::seconds(10);

}  // namespace

rpc::Task<Result<ReadOutcome>> Group::read(ChunkId chunk, Epoch epoch, std::uint32_t offset,
                                           std::uint32_t length, Deadline deadline) {
  bool repaired = false;
  for (;;) {
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
      env_.counters.reads.fetch_add(1, std::memory_order_relaxed);
      env_.counters.read_bytes.fetch_add(content->data.size(), std::memory_order_relaxed);
      co_return ReadOutcome{std::move(*content)};
    }
    if (content.error().code() != Code::kCorrupt || repaired) co_return fail(std::move(content.error()));
    auto mended = co_await repair(chunk, false);
    if (!mended) co_return fail(std::move(mended.error()));
    repaired = true;
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

void Group::log_corrupt(disk::ChunkEngine& engine) {
  for (const disk::CorruptChunk& bad : engine.take_corrupt()) {
    env_.counters.corrupt_found.fetch_add(1);
    const std::uint64_t from = std::uint64_t{bad.block} * kBlockSize;
    log_warn("chunk_corrupt", "chunk={} owner={} target={} path={} bytes={}-{} version={} detail={}",
             to_string(bad.info.chunk), to_string(bad.info.owner_hint), to_string(target_.id()),
             target_.path(), from, std::min<std::uint64_t>(from + kBlockSize, bad.info.length),
             to_string(bad.info.version), log_quote(bad.detail));
  }
}

// Puts a good copy of the same version in the place of a damaged one. Success also if it is whole by now.
rpc::Task<Result<>> Group::repair(ChunkId chunk, bool locked) {
  ChunkLocks::Hold hold;
  if (!locked) {
    auto held = co_await locks_.acquire(chunk, Deadline::after(env_.runtime.clock(), kRepairWait));
    if (!held) co_return fail(std::move(held.error()));
    hold = std::move(*held);
  }
  using Found = std::optional<disk::ChunkInfo>;  // of the damaged copy; nullopt: it is whole
  Target::Work<Found> look = [self = shared_from_this(), chunk](disk::ChunkEngine& engine) -> Result<Found> {
    auto whole = engine.read(self->id_.pool, chunk, 0, rpc::kPayloadMax);
    self->log_corrupt(engine);
    if (whole) return Found();
    if (whole.error().code() != Code::kCorrupt) return fail(std::move(whole.error()));
    TRY(auto info, engine.stat(self->id_.pool, chunk));
    return Found(std::move(info));
  };
  auto bad = co_await target_.run<Found>(std::move(look));
  if (!bad) co_return fail(std::move(bad.error()));
  if (!*bad) co_return Result<>();
  GroupConfig config;
  {
    std::lock_guard lock(mutex_);
    config = config_;
  }
  std::string why = "this is the only copy";
  for (const GroupMember& member : config.members) {
    if (!member.in_sync || member.target == target_.id()) continue;
    const Deadline deadline = Deadline::after(env_.runtime.clock(), kRepairWait);
    auto good = co_await fetch_from(member, chunk, config.epoch, deadline);
    if (!good) {
      why = good.error().to_string();
      continue;
    }
    auto copy = std::make_shared<FetchedChunk>(std::move(*good));
    Target::Work<void> mend = [copy](disk::ChunkEngine& engine) -> Result<> {
      disk::WriteOptions options;
      options.pool = copy->info.pool;
      options.version = copy->info.version;
      options.request = copy->info.last_request;
      options.owner_hint = copy->info.owner_hint;
      options.object = copy->info.object;
      options.durable = true;
      TRYV(engine.put(copy->info.chunk, copy->bytes.bytes(), copy->checksums,
                      disk::ChunkEngine::PutMode::kRepairSame, options));
      return {};
    };
    auto mended = co_await target_.run_durable<void>(std::move(mend));
    if (mended) {
      env_.counters.corrupt_repaired.fetch_add(1);
      log_warn("chunk_repaired", "chunk={} owner={} target={} from={} version={}", to_string(chunk),
               to_string((*bad)->owner_hint), to_string(target_.id()), to_string(member.target),
               to_string((*bad)->version));
      env_.heartbeat_now();
      co_return Result<>();
    }
    why = mended.error().to_string();
  }
  log_error("chunk_lost", "chunk={} owner={} target={} path={} length={} version={} error={}",
            to_string(chunk), to_string((*bad)->owner_hint), to_string(target_.id()), target_.path(),
            (*bad)->length, to_string((*bad)->version), log_quote(why));
  co_return fail(
      Code::kCorrupt,
      fmt::format("chunk {} of inode {} is damaged on target {} ({}) and no good copy was found: {}",
                  to_string(chunk), to_string((*bad)->owner_hint), to_string(target_.id()), target_.path(),
                  why));
}

}  // namespace cairn::chunkserver
