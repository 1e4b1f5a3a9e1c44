#include <map>

#include "client/chunk_request.h"
#include "client/fan_out.h"

namespace cairn::client {
namespace {

constexpr auto kSyncTry = std::chrono::seconds(15);
constexpr std::size_t kSyncItemsMax = 4096;  // of one request

// The answers about one chunk in one round: all of the epoch under which it was asked.
struct Tally {
  std::shared_ptr<const RoutedGroup> group;
  unsigned needed = 0;
  unsigned synced = 0;
  bool lost = false;
  Code other = Code::kUnavailable;
};

struct Round {
  std::mutex mutex;
  std::vector<Tally> tallies;  // one a chunk
};

rpc::Task<Result<>> ask(std::shared_ptr<rpc::Channel> channel, std::uint64_t session,
                        const std::vector<ChunkVersion>& chunks, std::vector<std::size_t> which, Round& round,
                        Deadline deadline) {
  rpc::OutMessage message;
  auto body = message.body<schema::SyncRequest>();
  body.setSession(session);
  auto items = body.initChunks(static_cast<unsigned>(which.size()));
  for (unsigned i = 0; i < which.size(); ++i) {
    const ChunkVersion& chunk = chunks[which[i]];
    auto item = items[i];
    item.getChunk().setData(chunk.chunk.data.value());
    item.getChunk().setIndex(chunk.chunk.index);
    item.getChunk().setShard(chunk.chunk.shard);
    item.setPool(chunk.pool.value());
    item.setEpoch(round.tallies[which[i]].group->epoch.value());
    item.getVersion().setEpoch(chunk.version.epoch.value());
    item.getVersion().setCounter(chunk.version.counter);
  }
  auto reply = co_await channel->call<rpc::method::Sync>(std::move(message), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded("Sync", [&] {
    std::lock_guard lock(round.mutex);
    const auto results = (*reply)->getResults();
    for (unsigned i = 0; i < which.size() && i < results.size(); ++i) {
      Tally& tally = round.tallies[which[i]];
      const Code code = code_from_number(results[i].getCode());
      if (code == Code::kLostUnsynced) tally.lost = true;
      if (code == Code::kOk && results[i].getEpoch() == tally.group->epoch.value()) {
        ++tally.synced;
      } else if (code != Code::kOk) {
        tally.other = code;
      }
    }
  });
}

}  // namespace

rpc::Task<Result<std::vector<Code>>> ChunkIo::sync(std::vector<ChunkVersion> chunks, Deadline deadline) {
  std::vector<Code> codes(chunks.size(), Code::kUnavailable);
  std::vector<std::size_t> open(chunks.size());
  for (std::size_t i = 0; i < open.size(); ++i) open[i] = i;
  const std::uint64_t session = session_.id().value();
  RetryWait wait;
  while (!open.empty()) {
    auto table = routing_.table();
    Round round;
    round.tallies.resize(chunks.size());
    std::map<ServerId, std::vector<std::size_t>> by_server;
    for (std::size_t index : open) {
      auto group = table->group_of(chunks[index].pool, chunks[index].chunk);
      if (!group) continue;
      Tally& tally = round.tallies[index];
      tally.group = *group;
      tally.needed = std::max(1u, table->pools.at(chunks[index].pool).min_replicas);
      unsigned in_sync = 0;
      for (const auto& member : (*group)->members) in_sync += member.in_sync ? 1 : 0;
      if (in_sync < tally.needed) {
        codes[index] = Code::kDegraded;
        continue;
      }
      for (const auto& member : (*group)->members) {
        if (member.in_sync) by_server[member.server].push_back(index);
      }
    }
    std::vector<rpc::Task<Result<>>> calls;
    const Deadline one = at_most(runtime_.clock(), deadline, kSyncTry);
    for (auto& [server, which] : by_server) {
      auto channel = routing_.channel(*table, server);
      if (!channel) continue;
      for (std::size_t from = 0; from < which.size(); from += kSyncItemsMax) {
        const std::size_t to = std::min(which.size(), from + kSyncItemsMax);
        calls.push_back(
            ask(*channel, session, chunks, {which.begin() + from, which.begin() + to}, round, one));
      }
    }
    auto asked = co_await run_all(runtime_, std::move(calls), 64);
    if (!asked && asked.error().code() == Code::kCancelled) co_return fail(std::move(asked.error()));
    if (!asked && asked.error().code() == Code::kSessionEnded) {
      session_.verify();
      co_return fail(std::move(asked.error()));
    }
    std::vector<std::size_t> still;
    for (std::size_t index : open) {
      const Tally& tally = round.tallies[index];
      if (tally.needed != 0 && tally.synced >= tally.needed) {
        codes[index] = Code::kOk;
      } else if (tally.lost) {
        codes[index] = Code::kLostUnsynced;
      } else {
        if (tally.synced != 0 || tally.other != Code::kUnavailable) codes[index] = tally.other;
        still.push_back(index);
      }
    }
    open = std::move(still);
    if (open.empty() || deadline.passed(runtime_.clock())) break;
    auto refreshed = co_await routing_.refresh(table, deadline);
    if (!refreshed && refreshed.error().code() == Code::kCancelled)
      co_return fail(std::move(refreshed.error()));
    auto slept =
        co_await rpc::sleep_until(runtime_, std::min(deadline.at, runtime_.clock().now() + wait.next()));
    if (!slept) co_return fail(std::move(slept.error()));
  }
  co_return codes;
}

}  // namespace cairn::client
