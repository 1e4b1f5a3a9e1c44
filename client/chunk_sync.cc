#include <map>

#include "client/chunk_request.h"
#include "client/fan_out.h"

namespace cairn::client {
namespace {

constexpr auto kSyncTry = std::chrono::seconds(15);
constexpr std::size_t kSyncItemsMax = 4096;  // of one request

struct Round {
  std::vector<std::shared_ptr<const RoutedGroup>> groups;  // one a chunk; null: not asked
  std::mutex mutex;
  std::vector<Code> codes;  // guarded by mutex: one a chunk
};

// Asks one head about its chunks. ok counts only under the epoch that was asked: each in-sync member of it
// has synced.
rpc::Task<Result<>> ask(std::shared_ptr<rpc::Channel> channel, std::uint64_t session,
                        const std::vector<ChunkVersion>& chunks, std::vector<std::size_t> which, Round& round,
                        Deadline deadline) {
  rpc::OutMessage message;
  auto body = message.body<schema::SyncRequest>();
  body.setSession(session);
  auto items = body.initChunks(static_cast<unsigned>(which.size()));
  for (unsigned i = 0; i < which.size(); ++i) {
    const ChunkVersion& chunk = chunks[which[i]];
    const RoutedGroup& group = *round.groups[which[i]];
    auto item = items[i];
    item.getChunk().setData(chunk.chunk.data.value());
    item.getChunk().setIndex(chunk.chunk.index);
    item.getChunk().setShard(chunk.chunk.shard);
    item.setPool(chunk.pool.value());
    item.setEpoch(group.epoch.value());
    item.setTarget(group.members.front().target.value());
    item.getVersion().setEpoch(chunk.version.epoch.value());
    item.getVersion().setCounter(chunk.version.counter);
  }
  auto reply = co_await channel->call<rpc::method::Sync>(std::move(message), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded("Sync", [&] {
    std::lock_guard lock(round.mutex);
    const auto results = (*reply)->getResults();
    for (unsigned i = 0; i < which.size() && i < results.size(); ++i) {
      Code code = code_from_number(results[i].getCode());
      const std::uint64_t epoch = results[i].getEpoch();
      if (code == Code::kOk && epoch != 0 && epoch != round.groups[which[i]]->epoch.value())
        code = Code::kWrongEpoch;
      round.codes[which[i]] = code;
    }
  });
}

}  // namespace

rpc::Task<Result<std::vector<Code>>> ChunkIo::sync(std::vector<ChunkVersion> chunks, Deadline deadline) {
  Round round;
  round.codes.assign(chunks.size(), Code::kUnavailable);
  std::vector<std::size_t> open(chunks.size());
  for (std::size_t i = 0; i < open.size(); ++i) open[i] = i;
  const std::uint64_t session = session_.id().value();
  RetryWait wait;
  while (!open.empty()) {
    auto table = routing_.table();
    round.groups.assign(chunks.size(), nullptr);
    std::map<ServerId, std::vector<std::size_t>> by_head;
    for (std::size_t index : open) {
      round.codes[index] = Code::kUnavailable;
      auto group = table->group_of(chunks[index].pool, chunks[index].chunk);
      if (!group || (*group)->members.empty()) continue;
      unsigned in_sync = 0;
      for (const auto& member : (*group)->members) in_sync += member.in_sync ? 1 : 0;
      if (in_sync < table->pools.at(chunks[index].pool).min_replicas) {
        round.codes[index] = Code::kDegraded;
        continue;
      }
      round.groups[index] = *group;
      by_head[(*group)->members.front().server].push_back(index);
    }
    std::vector<rpc::Task<Result<>>> calls;
    const Deadline one = at_most(runtime_.clock(), deadline, kSyncTry);
    for (auto& [server, which] : by_head) {
      auto channel = routing_.channel(*table, server);
      if (!channel) continue;
      for (std::size_t from = 0; from < which.size(); from += kSyncItemsMax) {
        const std::size_t to = std::min(which.size(), from + kSyncItemsMax);
        std::vector<std::size_t> part(which.begin() + from, which.begin() + to);
        calls.push_back(ask(*channel, session, chunks, std::move(part), round, one));
      }
    }
    auto asked = co_await run_all(runtime_, std::move(calls), 64);
    if (!asked && asked.error().code() == Code::kCancelled) co_return fail(std::move(asked.error()));
    if (!asked && asked.error().code() == Code::kSessionEnded) {
      co_await session_.verify(deadline);
      co_return fail(std::move(asked.error()));
    }
    std::erase_if(open, [&](std::size_t index) {
      return round.codes[index] == Code::kOk || round.codes[index] == Code::kLostUnsynced;
    });
    if (open.empty() || deadline.passed(runtime_.clock())) break;
    auto refreshed = co_await routing_.refresh(table, deadline);
    if (!refreshed && refreshed.error().code() == Code::kCancelled)
      co_return fail(std::move(refreshed.error()));
    auto slept =
        co_await rpc::sleep_until(runtime_, std::min(deadline.at, runtime_.clock().now() + wait.next()));
    if (!slept) co_return fail(std::move(slept.error()));
  }
  co_return std::move(round.codes);
}

}  // namespace cairn::client
