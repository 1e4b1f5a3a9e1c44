#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <condition_variable>

#include "client/objects_impl.h"

namespace cairn::client {

// One put's chunks in flight. Shared with their coroutines, so that a runtime that stops cannot leave them
// dangling.
struct ObjectsImpl::Putting {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t in_flight = 0;  // guarded by mutex, as all below
  std::vector<ChunkWritten> receipts;
  std::uint64_t done_bytes = 0;
  std::optional<Error> error;

  // Counts one chunk as in flight for as long as its coroutine exists, finished or destroyed.
  class Token {
   public:
    explicit Token(std::shared_ptr<Putting> state) : state_(std::move(state)) {}
    Token(Token&&) noexcept = default;
    ~Token() {
      if (!state_) return;
      std::lock_guard lock(state_->mutex);
      if (!finished_ && !state_->error)
        state_->error.emplace(Code::kCancelled, "the client was closed during a put");
      --state_->in_flight;
      state_->changed.notify_all();
    }
    void finish() { finished_ = true; }

   private:
    std::shared_ptr<Putting> state_;
    bool finished_ = false;
  };
};

rpc::Task<> ObjectsImpl::put_chunk(ChunkIo& chunks, std::shared_ptr<Putting> state, ChunkWrite write,
                                   std::size_t index, Budget::Hold memory, Deadline deadline) {
  Putting::Token token(state);
  const std::uint64_t size = write.payload.size();
  auto written = co_await chunks.write(std::move(write), deadline);
  memory.release();
  std::lock_guard lock(state->mutex);
  token.finish();
  if (written) {
    if (state->receipts.size() <= index) state->receipts.resize(index + 1);
    state->receipts[index] = *written;
    state->done_bytes += size;
  } else if (!state->error) {
    state->error.emplace(std::move(written.error()));
  }
}

Deadline ObjectsImpl::deadline_of(const PutOptions& options) const {
  return Deadline::after(runtime_.clock(), options.timeout.value_or(options_.timeout));
}

rpc::Task<Result<ObjectsImpl::Created>> ObjectsImpl::create(std::string id, std::uint64_t size,
                                                            Deadline deadline) {
  std::function<void(schema::CreateObjectRequest::Builder)> fill =
      [id, size](schema::CreateObjectRequest::Builder body) {
        body.initKey().setId(rpc::data(id));
        body.setSize(size);
      };
  Stamp stamp;
  auto reply = co_await session_.mutate<rpc::method::CreateObject>(std::move(fill), deadline, &stamp);
  if (!reply) co_return fail(std::move(reply.error()));
  Created created{DataId((*reply)->getData()), PoolId((*reply)->getPool()), (*reply)->getChunkSize(),
                  stamp.session};
  if (created.chunk_size < kBlockSize || created.chunk_size > rpc::kPayloadMax) {
    co_return fail(Code::kProtocol, "CreateObject: chunk size " + std::to_string(created.chunk_size));
  }
  co_return created;
}

rpc::Task<Result<ObjectInfo>> ObjectsImpl::seal(std::string id, Created created, std::uint64_t size,
                                                Digest digest, std::vector<ChunkWritten> receipts,
                                                std::string lineage, Deadline deadline) {
  std::function<void(schema::SealRequest::Builder)> fill = [=](schema::SealRequest::Builder body) {
    body.initKey().setId(rpc::data(id));
    body.setData(created.data.value());
    body.setSize(size);
    body.getDigest().setHigh(digest.high);
    body.getDigest().setLow(digest.low);
    auto to = body.initReceipts(static_cast<unsigned>(receipts.size()));
    for (unsigned i = 0; i < receipts.size(); ++i) {
      to[i].getVersion().setEpoch(receipts[i].version.epoch.value());
      to[i].getVersion().setCounter(receipts[i].version.counter);
      to[i].getDigest().setHigh(receipts[i].digest.high);
      to[i].getDigest().setLow(receipts[i].digest.low);
    }
    body.setLineage(rpc::data(lineage));
  };
  auto reply =
      co_await session_.mutate<rpc::method::Seal>(std::move(fill), deadline, nullptr, created.session);
  if (!reply) co_return fail(std::move(reply.error()));
  auto record = decoded("Seal", [&] { return decode((*reply)->getRecord()).info; });
  co_return record;
}

rpc::Task<Result<>> ObjectsImpl::abort(Created created, Deadline deadline) {
  std::function<void(schema::AbortObjectRequest::Builder)> fill =
      [=](schema::AbortObjectRequest::Builder body) { body.setData(created.data.value()); };
  auto reply =
      co_await session_.mutate<rpc::method::AbortObject>(std::move(fill), deadline, nullptr, created.session);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return Result<>{};
}

Result<ObjectInfo> ObjectsImpl::put(std::string_view id, Bytes bytes, const PutOptions& options) {
  PutOptions one = options;
  const Deadline deadline = deadline_of(options);
  for (;;) {
    std::size_t at = 0;
    auto put_once = put(
        id,
        [&](MutableBytes into) -> Result<std::size_t> {
          const std::size_t n = std::min(into.size(), bytes.size() - at);
          std::memcpy(into.data(), bytes.data() + at, n);
          at += n;
          return n;
        },
        bytes.size(), one);
    // The bytes are still here and sealing the same ones twice succeeds: a lost session costs only another
    // try.
    if (put_once || deadline.passed(runtime_.clock()) || session_.closed()) return put_once;
    const Code code = put_once.error().code();
    if (code != Code::kSessionEnded && code != Code::kMaybeApplied) return put_once;
    one.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(deadline.left(runtime_.clock()));
  }
}

Result<ObjectInfo> ObjectsImpl::put(std::string_view id, const Source& source, std::uint64_t size_hint,
                                    const PutOptions& options) {
  if (id.empty() || id.size() > 1024) {
    return fail(Code::kInvalidArgument,
                "an object id has 1 to 1,024 bytes, not " + std::to_string(id.size()));
  }
  if (options.lineage.size() > 64 << 10) return fail(Code::kInvalidArgument, "a lineage has at most 64 KiB");
  const Deadline deadline = deadline_of(options);
  // For a long stream the deadline is of one step without progress, not of the whole.
  const auto step = [&] {
    return Deadline::after(runtime_.clock(), options.timeout.value_or(options_.timeout));
  };
  TRY(const Created created, rpc::block_on(runtime_, create(std::string(id), size_hint, deadline)));
  auto state = std::make_shared<Putting>();
  DigestBuilder digest;
  std::uint64_t size = 0;
  std::size_t chunks = 0;
  Result<> outcome;
  const auto report = [&] {
    if (!options.progress) return;
    std::uint64_t done = 0;
    {
      std::lock_guard lock(state->mutex);
      done = state->done_bytes;
    }
    options.progress(done, size_hint);
  };
  for (bool more = true; more && outcome;) {
    const std::uint64_t want =
        size_hint > size ? std::min<std::uint64_t>(created.chunk_size, size_hint - size) : created.chunk_size;
    auto hold = rpc::block_on(runtime_, memory_.take(want, step()));
    if (!hold) {
      outcome = fail(hold.error().with("waiting for memory"));
      break;
    }
    auto buffer = rpc::Buffer::allocate(want);
    std::size_t filled = 0;
    while (filled < buffer.size()) {
      auto got = source(buffer.writable().subspan(filled));
      if (!got) {
        outcome = fail(got.error());
        break;
      }
      if (*got == 0) {
        more = false;
        break;
      }
      filled += *got;
    }
    // A stream that is longer than it was said to be goes on in the same chunk.
    if (outcome && more && filled == buffer.size() && filled < created.chunk_size) {
      auto whole = rpc::Buffer::allocate(created.chunk_size);
      std::memcpy(whole.writable().data(), buffer.bytes().data(), filled);
      while (filled < whole.size()) {
        auto got = source(whole.writable().subspan(filled));
        if (!got) outcome = fail(got.error());
        if (!got || *got == 0) {
          more = false;
          break;
        }
        filled += *got;
      }
      if (filled > buffer.size()) buffer = whole;
    }
    if (!outcome || filled == 0) break;
    auto piece = buffer.slice(0, filled);
    digest.add(piece.bytes());
    size += filled;
    {
      std::unique_lock lock(state->mutex);
      state->changed.wait(
          lock, [&] { return state->in_flight < std::max(1u, options_.parallel_chunks) || state->error; });
      if (state->error) break;
      ++state->in_flight;
    }
    ChunkWrite write;
    write.target = {
        {created.data, static_cast<std::uint32_t>(chunks), 0}, created.pool, created.session, {}, 0};
    write.kind = schema::WriteRequest::Kind::PUT;
    write.payload.pieces.push_back(std::move(piece));
    write.ends_chunk = true;
    write.durable = Durable::kYes;
    rpc::asio::co_spawn(runtime_.executor(),
                        put_chunk(chunks_, state, std::move(write), chunks, std::move(*hold), step()),
                        rpc::asio::detached);
    ++chunks;
    report();
  }
  {
    std::unique_lock lock(state->mutex);
    state->changed.wait(lock, [&] { return state->in_flight == 0; });
    if (state->error && outcome) outcome = fail(*state->error);
  }
  if (!outcome) {
    auto aborted =
        rpc::block_on(runtime_, abort(created, Deadline::after(runtime_.clock(), std::chrono::seconds(5))));
    (void)aborted;  // the server drops what is unsealed with the session anyway
    return fail(outcome.error().with("put of object '" + std::string(id) + "'"));
  }
  auto sealed = rpc::block_on(runtime_, seal(std::string(id), created, size, digest.finish(),
                                             std::move(state->receipts), options.lineage, step()));
  if (!sealed) return fail(sealed.error().with("put of object '" + std::string(id) + "'"));
  if (options.progress) options.progress(size, size);
  return sealed;
}

}  // namespace cairn::client
