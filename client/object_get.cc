#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <condition_variable>

#include "client/objects_impl.h"

namespace cairn::client {

// Chunks of one get, fetched ahead of the sink. Shared with their coroutines.
struct ObjectsImpl::Reading {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::optional<Result<rpc::Buffer>>> slots;  // guarded by mutex

  // Fills its slot in any case, also when the runtime stops and destroys the coroutine.
  class Token {
   public:
    Token(std::shared_ptr<Reading> state, std::size_t slot, Budget::Hold memory)
        : state_(std::move(state)), slot_(slot), memory_(std::move(memory)) {}
    Token(const Token&) = delete;
    ~Token() {
      if (!filled_) fill(fail(Code::kCancelled, "the client was closed during a get"));
    }
    void fill(Result<rpc::Buffer> result) {
      filled_ = true;
      std::lock_guard lock(state_->mutex);
      state_->slots[slot_].emplace(std::move(result));
      state_->changed.notify_all();
    }

   private:
    std::shared_ptr<Reading> state_;
    const std::size_t slot_;
    Budget::Hold memory_;
    bool filled_ = false;
  };
};

rpc::Task<> ObjectsImpl::read_chunk(ChunkIo& chunks, std::shared_ptr<Reading> state, ChunkTarget target,
                                    std::uint32_t offset, std::uint32_t length, std::size_t slot,
                                    Budget::Hold memory, Deadline deadline) {
  Reading::Token token(state, slot, std::move(memory));
  auto bytes = co_await chunks.read(target, offset, length, Presence::kMust, deadline);
  if (bytes && bytes->size() != length) {
    bytes = fail(Code::kCorrupt, "chunk " + to_string(target.chunk) + " of a sealed object is too short");
  }
  token.fill(std::move(bytes));
}

Result<> ObjectsImpl::read_range(const ObjectRecord& record, std::uint64_t offset, std::uint64_t length,
                                 const Sink& sink, Deadline) {
  if (length == 0) return {};
  if (!record.layout.valid()) return fail(Code::kProtocol, "object '" + record.info.id + "' has no layout");
  const std::uint64_t chunk_size = record.layout.chunk_size();
  const std::uint64_t first = offset / chunk_size, last = (offset + length - 1) / chunk_size;
  const std::size_t window =
      std::clamp<std::size_t>(memory_.capacity() / 2 / chunk_size, 1, options_.parallel_chunks);
  auto state = std::make_shared<Reading>();
  state->slots.resize(window);
  std::uint64_t started = first;
  const auto fetch = [&](std::uint64_t index) -> Result<> {
    const std::uint64_t begin = std::max(offset, index * chunk_size),
                        end = std::min(offset + length, (index + 1) * chunk_size);
    const Deadline step = Deadline::after(runtime_.clock(), options_.timeout);
    TRY(auto hold, rpc::block_on(runtime_, memory_.take(end - begin, step)));
    const Layer& layer = record.layout.layer_of(index);
    ChunkTarget target{{layer.data, static_cast<std::uint32_t>(index), 0}, layer.pool, session_.id(), {}, 0};
    rpc::asio::co_spawn(
        runtime_.executor(),
        read_chunk(chunks_, state, target, static_cast<std::uint32_t>(begin - index * chunk_size),
                   static_cast<std::uint32_t>(end - begin), index % window, std::move(hold), step),
        rpc::asio::detached);
    return {};
  };
  Result<> outcome;
  for (std::uint64_t next = first; next <= last && outcome; ++next) {
    while (started <= last && started < next + window && outcome) {
      outcome = fetch(started);
      if (outcome) ++started;
    }
    if (!outcome) break;
    std::optional<Result<rpc::Buffer>> got;
    {
      std::unique_lock lock(state->mutex);
      auto& slot = state->slots[next % window];
      state->changed.wait(lock, [&] { return slot.has_value(); });
      got = std::move(slot);
      slot.reset();
    }
    if (!*got) {
      outcome = fail(got->error());
    } else {
      outcome = sink((*got)->bytes());
    }
  }
  return outcome;
}

rpc::Task<Result<ObjectRecord>> ObjectsImpl::record(std::string id, Deadline deadline) {
  std::function<void(schema::GetObjectsRequest::Builder, std::uint64_t)> fill =
      [id](schema::GetObjectsRequest::Builder body, std::uint64_t session) {
        body.setSession(session);
        body.initKeys(1)[0].setId(rpc::data(id));
      };
  auto reply = co_await session_.query<rpc::method::GetObjects>(std::move(fill), deadline);
  if (!reply) co_return fail(std::move(reply.error()));
  auto record = decoded("GetObjects", [&]() -> Result<ObjectRecord> {
    const auto results = (*reply)->getResults();
    if (results.size() != 1)
      return fail(Code::kProtocol,
                  "GetObjects: one key asked, " + std::to_string(results.size()) + " answered");
    const Code code = code_from_number(results[0].getCode());
    if (code != Code::kOk) return fail(code, "object '" + id + "': " + std::string(code_name(code)));
    ObjectRecord out = decode(results[0].getRecord());
    if (out.info.id.empty()) out.info.id = id;
    return out;
  });
  if (!record) co_return fail(std::move(record.error()));
  co_return std::move(*record);
}

Result<ObjectInfo> ObjectsImpl::get(std::string_view id, const Sink& sink, const Progress& progress) {
  const Deadline deadline = Deadline::after(runtime_.clock(), options_.timeout);
  TRY(const ObjectRecord found, rpc::block_on(runtime_, record(std::string(id), deadline)));
  DigestBuilder digest;
  std::uint64_t done = 0;
  auto read = read_range(
      found, 0, found.info.size,
      [&](Bytes piece) -> Result<> {
        digest.add(piece);
        TRYV(sink(piece));
        done += piece.size();
        if (progress) progress(done, found.info.size);
        return {};
      },
      deadline);
  if (!read) {
    // Deleted while it was read: its chunks may be gone.
    if (read.error().code() == Code::kCorrupt) {
      TRY(auto again, rpc::block_on(runtime_, record(std::string(id),
                                                     Deadline::after(runtime_.clock(), options_.timeout))));
    }
    return fail(read.error().with("get of object '" + std::string(id) + "'"));
  }
  if (const Digest got = digest.finish(); got != found.info.digest) {
    return fail(Code::kCorrupt, "object '" + std::string(id) + "': digest " + to_string(got) +
                                    ", sealed as " + to_string(found.info.digest));
  }
  return found.info;
}

Result<std::string> ObjectsImpl::get(std::string_view id) {
  std::string out;
  TRYV(get(
      id,
      [&](Bytes piece) -> Result<> {
        out.append(as_text(piece));
        return {};
      },
      Progress()));
  return out;
}

Result<std::string> ObjectsImpl::get_range(std::string_view id, std::uint64_t offset, std::uint64_t length) {
  const Deadline deadline = Deadline::after(runtime_.clock(), options_.timeout);
  TRY(const ObjectRecord found, rpc::block_on(runtime_, record(std::string(id), deadline)));
  if (offset >= found.info.size) return std::string();
  std::string out;
  TRYV(read_range(
      found, offset, std::min(length, found.info.size - offset),
      [&](Bytes piece) -> Result<> {
        out.append(as_text(piece));
        return {};
      },
      deadline));
  return out;
}

}  // namespace cairn::client
