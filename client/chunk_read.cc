#include "client/chunk_request.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

constexpr auto kReadTry = std::chrono::seconds(3);  // then another member is asked; grows with each round
constexpr auto kAvoidFor = std::chrono::seconds(3);

struct ReadParts {
  std::uint32_t aligned = 0;
  std::uint32_t chunk_length = 0;
  std::vector<BlockChecksum> checksums;
};

ReadParts decode_read(schema::ReadReply::Reader reply) {
  ReadParts parts{reply.getAlignedOffset(), reply.getChunkLength(), {}};
  parts.checksums.reserve(reply.getChecksums().size());
  for (auto checksum : reply.getChecksums()) parts.checksums.push_back(checksum);
  return parts;
}

// The asked range out of a reply, after its shape and bytes were checked.
Result<rpc::Buffer> verified(const ReadParts& parts, const rpc::Buffer& payload, std::uint32_t offset,
                             std::uint32_t length) {
  const std::uint64_t end = std::min<std::uint64_t>(std::uint64_t{offset} + length, parts.chunk_length);
  if (end <= offset) return rpc::Buffer();
  if (parts.aligned > offset || parts.aligned % kBlockSize != 0 || parts.aligned + payload.size() < end ||
      parts.checksums.size() != blocks_in(payload.size())) {
    return fail(Code::kProtocol, "a read reply does not cover what was asked");
  }
  const int bad = first_bad_block(payload.bytes(), parts.checksums);
  if (bad >= 0) {
    return fail(Code::kCorrupt, "block " +
                                    std::to_string(parts.aligned / kBlockSize + static_cast<unsigned>(bad)) +
                                    " does not match its checksum on arrival");
  }
  return payload.slice(offset - parts.aligned, end - offset);
}

}  // namespace

std::vector<RoutedMember> ChunkIo::read_order(const RoutedGroup& group, ChunkId chunk) const {
  std::vector<RoutedMember> order;
  for (const auto& member : group.members) {
    if (member.in_sync) order.push_back(member);
  }
  if (order.size() < 2) return order;
  std::rotate(order.begin(), order.begin() + chunk.index % order.size(), order.end());
  const TimePoint now = runtime_.clock().now();
  std::lock_guard lock(mutex_);
  if (avoid_until_.empty()) return order;
  std::stable_partition(order.begin(), order.end(), [&](const RoutedMember& member) {
    auto it = avoid_until_.find(member.server);
    return it == avoid_until_.end() || it->second <= now;
  });
  return order;
}

void ChunkIo::failed(ServerId server) {
  std::lock_guard lock(mutex_);
  avoid_until_[server] = runtime_.clock().now() + kAvoidFor;
}

rpc::Task<Result<rpc::Buffer>> ChunkIo::read_from(std::shared_ptr<const RoutingTable> table,
                                                  const RoutedGroup& group, RoutedMember member,
                                                  ChunkTarget target, std::uint32_t offset,
                                                  std::uint32_t length, Deadline deadline) {
  CO_TRY(auto channel, routing_.channel(*table, member.server));
  rpc::OutMessage message;
  auto body = message.body<schema::ReadRequest>();
  set_context(body.initContext(), target, group.epoch, member.target, 0);
  body.setOffset(offset);
  body.setLength(length);
  auto reply = co_await channel->call<rpc::method::Read>(std::move(message), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  CO_TRY(auto parts, decoded("Read", [&] { return decode_read(**reply); }));
  co_return verified(parts, reply->payload(), offset, length);
}

rpc::Task<Result<rpc::Buffer>> ChunkIo::read(ChunkTarget target, std::uint32_t offset, std::uint32_t length,
                                             Presence presence, Deadline deadline) {
  RetryWait wait;
  std::string last = "no member is in sync";
  for (unsigned round = 0;; ++round) {
    auto table = routing_.table();
    auto group = table->group_of(target.pool, target.chunk);
    std::size_t damaged = 0, asked = 0;
    if (group) {
      const auto order = read_order(**group, target.chunk);
      asked = order.size();
      bool tail_asked = false;
      for (std::size_t i = 0; i < order.size(); ++i) {
        RoutedMember member = order[i];
        const Deadline one = at_most(runtime_.clock(), deadline, kReadTry * (round + 1));
        auto bytes = co_await read_from(table, **group, member, target, offset, length, one);
        if (bytes) co_return bytes;
        Error error = std::move(bytes.error());
        if (error.code() == Code::kBusyPending && !tail_asked) {
          // A write is on its way through the chain: only the tail knows whether it is committed.
          tail_asked = true;
          for (const auto& candidate : (*group)->members) {
            if (candidate.in_sync) member = candidate;
          }
          auto committed = co_await read_from(table, **group, member, target, offset, length, one);
          if (committed) co_return committed;
          error = std::move(committed.error());
        }
        last = "chunkserver " + to_string(member.server) + ": " + error.to_string();
        switch (error.code()) {
          case Code::kNotFound:
            if (presence == Presence::kMay) co_return fail(std::move(error));
            ++damaged;
            log_error("chunk_absent", "chunk={} server={} epoch={}", to_string(target.chunk),
                      to_string(member.server), to_string((*group)->epoch));
            break;
          case Code::kCorrupt:
            ++damaged;
            log_warn("chunk_corrupt", "chunk={} offset={} length={} server={} error={}",
                     to_string(target.chunk), offset, length, to_string(member.server),
                     log_quote(error.message()));
            break;
          case Code::kSessionEnded:
            co_await session_.verify(deadline);
            co_return fail(std::move(error));
          case Code::kCancelled:
            co_return fail(std::move(error));
          case Code::kInvalidArgument:
          case Code::kWrongCluster:
            co_return fail(error.with(last));
          case Code::kUnavailable:
          case Code::kTimeout:
          case Code::kMaybeApplied:
            failed(member.server);
            break;
          default:
            break;
        }
      }
    } else {
      last = group.error().message();
    }
    if (asked != 0 && damaged == asked && round > 0) {
      log_error("chunk_unreadable", "chunk={} inode={} offset={} length={} error={}", to_string(target.chunk),
                to_string(target.owner), offset, length, log_quote(last));
      co_return fail(Code::kCorrupt, "no good copy of chunk " + to_string(target.chunk) + " bytes " +
                                         std::to_string(offset) + "+" + std::to_string(length) + " (" + last +
                                         ")");
    }
    if (deadline.passed(runtime_.clock())) {
      co_return fail(Code::kUnavailable, "chunk " + to_string(target.chunk) + " can't be read: " + last);
    }
    auto refreshed = co_await routing_.refresh(table, deadline);
    if (!refreshed && refreshed.error().code() == Code::kCancelled)
      co_return fail(std::move(refreshed.error()));
    auto slept =
        co_await rpc::sleep_until(runtime_, std::min(deadline.at, runtime_.clock().now() + wait.next()));
    if (!slept) co_return fail(std::move(slept.error()));
  }
}

}  // namespace cairn::client
