#include "client/chunk_request.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

constexpr auto kReclaimPatience = std::chrono::seconds(5);
constexpr auto kWriteTry = std::chrono::seconds(15);  // longer than it takes to declare a silent member dead

}  // namespace

std::vector<BlockChecksum> payload_checksums(const rpc::Payload& payload) {
  std::vector<BlockChecksum> out;
  out.reserve(blocks_in(payload.size()));
  std::vector<std::byte> straddling;  // a block that lies in several pieces
  for (const auto& piece : payload.pieces) {
    Bytes rest = piece.bytes();
    if (!straddling.empty()) {
      const std::size_t part = std::min<std::size_t>(rest.size(), kBlockSize - straddling.size());
      straddling.insert(straddling.end(), rest.begin(), rest.begin() + part);
      rest = rest.subspan(part);
      if (straddling.size() < kBlockSize) continue;
      out.push_back(checksum64(straddling));
      straddling.clear();
    }
    const std::size_t whole = rest.size() / kBlockSize;
    const std::size_t before = out.size();
    out.resize(before + whole);
    block_checksums(rest.first(whole * kBlockSize), std::span(out).subspan(before));
    rest = rest.subspan(whole * kBlockSize);
    straddling.assign(rest.begin(), rest.end());
  }
  if (!straddling.empty()) out.push_back(checksum64(straddling));
  return out;
}

ChunkIo::ChunkIo(rpc::Runtime& runtime, Session& session, Routing& routing)
    : runtime_(runtime), session_(session), routing_(routing) {}

rpc::Task<Result<ChunkWritten>> ChunkIo::write(ChunkWrite write, Deadline deadline) {
  const ChunkTarget target = write.target;
  const std::uint64_t sequence = session_.next_sequence();
  const std::size_t size = write.payload.size();
  const std::uint64_t end = write.offset + size;
  std::vector<BlockChecksum> checksums;
  // A partial block is merged, and its checksum made, by the head.
  const bool whole_blocks =
      size != 0 && write.offset % kBlockSize == 0 && (end % kBlockSize == 0 || write.ends_chunk);
  if (whole_blocks) checksums = payload_checksums(write.payload);

  RetryWait wait;
  bool sent_before = false;
  std::string last;
  for (;;) {
    if (session_.id() != target.session) {
      co_return fail(Code::kSessionEnded, "write of chunk " + to_string(target.chunk) + ": session " +
                                              to_string(target.session) + " ended");
    }
    auto table = routing_.table();
    auto group = table->group_of(target.pool, target.chunk);
    Code code = Code::kUnavailable;
    if (!group) {
      last = group.error().message();
    } else if ((*group)->members.empty() || !(*group)->members.front().in_sync) {
      last = "group " + to_string((*group)->id) + " has no head";
    } else if (auto channel = routing_.channel(*table, (*group)->members.front().server); !channel) {
      last = channel.error().message();
    } else {
      rpc::OutMessage message;
      auto body = message.body<schema::WriteRequest>();
      set_context(body.initContext(), target, (*group)->epoch, (*group)->members.front().target, sequence);
      body.setKind(write.kind);
      body.setOffset(write.offset);
      body.setLength(write.length);
      body.setDurable(write.durable == Durable::kYes);
      body.setChecksums(kj::ArrayPtr<const std::uint64_t>(checksums.data(), checksums.size()));
      message.payload = write.payload;
      message.payload.self_checked = whole_blocks;
      auto head = *channel;
      const Deadline one = at_most(runtime_.clock(), deadline, kWriteTry);
      auto reply = co_await head->call<rpc::method::Write>(std::move(message), one);
      if (reply) {
        co_return decoded("Write", [&] {
          const auto& answer = **reply;
          return ChunkWritten{{Epoch(answer.getVersion().getEpoch()), answer.getVersion().getCounter()},
                              {answer.getDigest().getHigh(), answer.getDigest().getLow()},
                              answer.getLength(),
                              {Epoch(answer.getBase().getEpoch()), answer.getBase().getCounter()}};
        });
      }
      code = reply.error().code();
      last = "head " + head->address() + ": " + reply.error().to_string();
      switch (code) {
        case Code::kMaybeApplied:
          sent_before = true;
          break;
        case Code::kUnavailable:
        case Code::kTimeout:
        case Code::kWrongEpoch:
        case Code::kNotServing:
        case Code::kNotHere:
        case Code::kBusyPending:
        case Code::kOverloaded:
        case Code::kStarting:
        case Code::kStale:
        case Code::kIo:
        case Code::kDegraded:
          break;
        case Code::kSessionEnded:
          co_await session_.verify(deadline);
          co_return fail(std::move(reply.error()));
        case Code::kNoSpace: {
          // What deleted files keep goes first.
          bool again = false;
          if (!deadline.passed(runtime_.clock())) again = co_await reclaim(size, deadline);
          if (again) break;
          co_return fail(
              reply.error().with("write of chunk " + to_string(target.chunk) + " at " + head->address()));
        }
        default:
          co_return fail(
              reply.error().with("write of chunk " + to_string(target.chunk) + " at " + head->address()));
      }
    }
    if (deadline.passed(runtime_.clock())) {
      if (sent_before) code = Code::kMaybeApplied;
      co_return fail(code,
                     "write of chunk " + to_string(target.chunk) + " not acknowledged in time: " + last);
    }
    auto refreshed = co_await routing_.refresh(table, deadline);
    if (!refreshed && refreshed.error().code() == Code::kCancelled)
      co_return fail(std::move(refreshed.error()));
    auto slept =
        co_await rpc::sleep_until(runtime_, std::min(deadline.at, runtime_.clock().now() + wait.next()));
    if (!slept) co_return fail(std::move(slept.error()));
  }
}

// True: it may fit now.
rpc::Task<bool> ChunkIo::reclaim(std::uint64_t bytes, Deadline deadline) {
  std::function<void(schema::ReclaimRequest::Builder, std::uint64_t)> fill =
      [bytes](schema::ReclaimRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.setBytes(bytes);
      };
  auto reply = co_await session_.query<rpc::method::Reclaim>(std::move(fill), deadline);
  if (!reply) {
    log_debug("nothing_reclaimed", "error={}", log_quote(reply.error().to_string()));
    co_return false;
  }
  const TimePoint now = runtime_.clock().now();
  if ((*reply)->getFreed()) reclaimed_at_ = now;
  // Deleted files that were still open, or being saved, give their space back a moment after they left the
  // trash.
  co_return now < reclaimed_at_.load() + kReclaimPatience;
}

}  // namespace cairn::client
