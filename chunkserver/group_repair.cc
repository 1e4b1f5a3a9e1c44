// Repair of damaged blocks. A block is good wherever its bytes match the checksum that is recorded *here*:
// then they are what this member's version of the chunk has, whatever version the one who sent them is at. So
// each block may come from any in-sync member, and two copies with different bad blocks mend each other.
#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/group.h"
#include "chunkserver/wire.h"
#include "store/base/log.h"

namespace cairn::chunkserver {
namespace {

constexpr Duration kRepairWait = std::chrono::seconds(10);
constexpr std::uint32_t kBlocksAtOnce = (4 << 20) / kBlockSize;

std::string bytes_text(BlockRange blocks, std::uint32_t length) {
  return fmt::format("{}-{}", std::uint64_t{blocks.first} * kBlockSize,
                     std::min<std::uint64_t>(std::uint64_t{blocks.end} * kBlockSize, length));
}

}  // namespace

struct Group::Damage {
  disk::ChunkInfo info;
  std::vector<BlockChecksum> sums;
  std::vector<std::uint32_t> bad;  // blocks, in order
};

Error Group::unreadable(const ChunkId& chunk, std::uint32_t block, std::string_view why) const {
  return Error(
      Code::kCorrupt,
      fmt::format("chunk {} bytes {} to {} are damaged on target {} ({}) and no good copy was found: {}",
                  to_string(chunk), std::uint64_t{block} * kBlockSize, std::uint64_t{block + 1} * kBlockSize,
                  to_string(target_.id()), target_.path(), why));
}

// Counts and logs what the engine found, each block once.
void Group::note_damage(disk::ChunkEngine& engine) {
  for (const disk::CorruptChunk& bad : engine.take_corrupt()) {
    if (!target_.damage().found(bad.info.chunk, bad.block)) continue;
    env_.counters.corrupt_found.fetch_add(1);
    log_warn("chunk_corrupt", "chunk={} owner={} target={} path={} bytes={} version={} detail={}",
             to_string(bad.info.chunk), to_string(bad.info.owner_hint), to_string(target_.id()),
             target_.path(), bytes_text({bad.block, bad.block + 1}, bad.info.length),
             to_string(bad.info.version), log_quote(bad.detail));
  }
}

Result<Group::Damage> Group::look_for_damage(disk::ChunkEngine& engine, ChunkId chunk) {
  Damage damage;
  TRY(damage.info, engine.stat(id_.pool, chunk));
  auto all = engine.read(id_.pool, chunk, 0, rpc::kPayloadMax);
  if (!all && all.error().code() != Code::kCorrupt) return fail(std::move(all.error()));
  if (!all) {
    for (std::uint32_t block = 0; block < blocks_in(damage.info.length); ++block) {
      auto one = engine.read(id_.pool, chunk, block * kBlockSize, kBlockSize);
      if (one) continue;
      if (one.error().code() != Code::kCorrupt) return fail(std::move(one.error()));
      damage.bad.push_back(block);
    }
    note_damage(engine);
    TRY(damage.sums, engine.checksums(id_.pool, chunk));
  }
  // What is not bad now is not any more.
  std::uint32_t from = 0;
  for (std::uint32_t bad : damage.bad) {
    target_.damage().whole(chunk, {from, bad});
    from = bad + 1;
  }
  target_.damage().whole(chunk, {from, UINT32_MAX});
  return damage;
}

rpc::Task<Result<>> Group::repair(ChunkId chunk, BlockRange range, bool locked) {
  DamageLog& log = target_.damage();
  if (auto block = log.first_resting(chunk, range, env_.runtime.clock().now()))
    co_return fail(unreadable(chunk, *block, "looked for lately"));
  ChunkLocks::Hold hold;
  if (!locked) {
    auto held = co_await locks_.acquire(chunk, Deadline::after(env_.runtime.clock(), kRepairWait));
    if (!held) co_return fail(std::move(held.error()));
    hold = std::move(*held);
  }
  Target::Work<Damage> look = [self = shared_from_this(), chunk](disk::ChunkEngine& engine) {
    return self->look_for_damage(engine, chunk);
  };
  auto seen = co_await target_.run<Damage>(std::move(look));
  if (!seen) co_return fail(std::move(seen.error()));
  auto damage = std::make_shared<const Damage>(std::move(*seen));
  std::optional<Error> failed;   // of the range
  std::vector<BlockRange> left;  // from the last to the first
  for (auto bad = damage->bad.rbegin(); bad != damage->bad.rend(); ++bad) {
    if (log.resting(chunk, *bad, env_.runtime.clock().now())) {
      if (*bad >= range.first && *bad < range.end) failed = unreadable(chunk, *bad, "looked for lately");
    } else if (!left.empty() && left.back().first == *bad + 1 && left.back().end - *bad <= kBlocksAtOnce) {
      left.back().first = *bad;
    } else {
      left.push_back({*bad, *bad + 1});
    }
  }
  while (!left.empty()) {
    const BlockRange blocks = left.back();
    left.pop_back();
    const Mended mended = co_await mend(damage, blocks);
    if (mended == Mended::kYes) continue;
    if (blocks.end - blocks.first > 1) {  // one of them spoils the others
      const std::uint32_t middle = blocks.first + (blocks.end - blocks.first) / 2;
      left.push_back({middle, blocks.end});
      left.push_back({blocks.first, middle});
      continue;
    }
    const bool asked_for = blocks.first >= range.first && blocks.first < range.end;
    if (mended == Mended::kUnknown) {
      if (asked_for && !failed)
        failed =
            Error(Code::kNotHere,
                  fmt::format("chunk {} is damaged here, and not every other member could be asked for a "
                              "good copy: try again",
                              to_string(chunk)));
      continue;
    }
    if (log.lost(chunk, blocks.first, env_.runtime.clock().now()))
      log_error("chunk_lost", "chunk={} owner={} target={} path={} bytes={} version={} note={}",
                to_string(chunk), to_string(damage->info.owner_hint), to_string(target_.id()), target_.path(),
                bytes_text(blocks, damage->info.length), to_string(damage->info.version),
                log_quote("no in-sync member has a good copy of these bytes: reads of them fail, the rest of "
                          "the chunk is served"));
    if (asked_for) failed = unreadable(chunk, blocks.first, "no in-sync member has one");
  }
  if (failed) co_return fail(std::move(*failed));
  co_return Result<>();
}

// Asks one member after the other for the blocks, and puts the first good ones in place.
rpc::Task<Group::Mended> Group::mend(std::shared_ptr<const Damage> damage, BlockRange blocks) {
  GroupConfig config;
  {
    std::lock_guard lock(mutex_);
    config = config_;
  }
  Mended outcome = Mended::kNowhere;
  for (const GroupMember& member : config.members) {
    if (!member.in_sync || member.target == target_.id()) continue;
    auto good = co_await fetch_blocks(member, damage, blocks, config.epoch);
    if (!good) {
      const Code code = good.error().code();
      if (code != Code::kCorrupt && code != Code::kNotFound) {
        outcome = Mended::kUnknown;
        log_debug("repair_waits", "chunk={} member={} error={}", to_string(damage->info.chunk),
                  to_string(member.target), log_quote(good.error().to_string()));
      }
      continue;
    }
    auto bytes = std::make_shared<rpc::Buffer>(std::move(*good));
    Target::Work<void> work = [bytes, damage, blocks](disk::ChunkEngine& engine) {
      return engine.mend(damage->info.pool, damage->info.chunk, blocks.first, bytes->bytes());
    };
    auto mended = co_await target_.run_durable<void>(std::move(work));
    if (!mended) {
      outcome = Mended::kUnknown;
      log_warn("repair_failed", "chunk={} target={} error={}", to_string(damage->info.chunk),
               to_string(target_.id()), log_quote(mended.error().to_string()));
      break;
    }
    target_.damage().whole(damage->info.chunk, blocks);
    env_.counters.corrupt_repaired.fetch_add(blocks.end - blocks.first);
    log_warn("chunk_repaired", "chunk={} owner={} target={} from={} bytes={} version={}",
             to_string(damage->info.chunk), to_string(damage->info.owner_hint), to_string(target_.id()),
             to_string(member.target), bytes_text(blocks, damage->info.length),
             to_string(damage->info.version));
    env_.heartbeat_now();
    co_return Mended::kYes;
  }
  co_return outcome;
}

// kCorrupt: the member's bytes are no good either. kStale: it has others, because a write is on its way.
rpc::Task<Result<rpc::Buffer>> Group::fetch_blocks(GroupMember member, std::shared_ptr<const Damage> damage,
                                                   BlockRange blocks, Epoch epoch) {
  const std::uint32_t offset = blocks.first * kBlockSize;
  const std::uint32_t size = std::min(blocks.end * kBlockSize, damage->info.length) - offset;
  rpc::OutMessage request;
  auto body = request.body<schema::FetchRequest>();
  set_chunk(body.initChunk(), damage->info.chunk);
  set_group(body.initGroup(), id_);
  body.setEpoch(epoch.value());
  body.setTarget(member.target.value());
  body.setOffset(offset);
  body.setLength((blocks.end - blocks.first) * kBlockSize);
  const Deadline deadline = Deadline::after(env_.runtime.clock(), kRepairWait);
  auto reply = co_await env_.peers.call<rpc::method::Fetch>(member.server, Peers::Link::kBulk,
                                                            std::move(request), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  Version theirs;
  try {
    theirs = version_of((*reply)->getEntry().getVersion());
  } catch (const kj::Exception& e) {
    co_return fail(Code::kProtocol, std::string("Fetch: malformed reply: ") + e.getDescription().cStr());
  }
  rpc::Buffer bytes = reply->take_payload();
  const auto sums = std::span(damage->sums).subspan(blocks.first, blocks.end - blocks.first);
  if (bytes.size() == size && first_bad_block(bytes.bytes(), sums) < 0) co_return bytes;
  const Code code = theirs == damage->info.version ? Code::kCorrupt : Code::kStale;
  co_return fail(
      code, fmt::format("chunk {}: target {} has other bytes, at version {}", to_string(damage->info.chunk),
                        to_string(member.target), to_string(theirs)));
}

rpc::Task<> Group::repair_later(std::shared_ptr<Group> self, ChunkId chunk, BlockRange range) {
  auto repaired = co_await self->repair(chunk, range, false);
  if (!repaired)
    log_debug("repair_failed", "chunk={} error={}", to_string(chunk), log_quote(repaired.error().message()));
}

}  // namespace cairn::chunkserver
