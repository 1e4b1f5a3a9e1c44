#include "client/share_chunks.h"

#include "client/fan_out.h"
#include "client/truncate.h"
#include "store/base/log.h"

namespace cairn::client {
namespace {

// What the target holds itself of the chunks that it is to get: of no use afterwards.
std::vector<ChunkWrite> removals(const Inode& target, const ChunkShare& what) {
  std::vector<ChunkWrite> out;
  const std::uint64_t end =
      std::min(what.to + what.count, chunks_of(target.size(), target.layout.chunk_size()));
  for (std::uint64_t index = what.to; index < end; ++index) {
    if (target.file->holes.contains(index) || target.layout.frozen_layer_of(index) != nullptr) continue;
    ChunkWrite write;
    write.target = write_target(target, index);
    write.kind = schema::WriteRequest::Kind::REMOVE;
    out.push_back(std::move(write));
  }
  return out;
}

// The frozen layer of a file with many layers that holds the fewest chunks: copied up, it is gone. So a file
// can be cloned and written to again and again.
constexpr std::size_t kLayersMany = 64;
constexpr std::uint64_t kCopiedUpMost = 64;
std::vector<std::uint64_t> chunks_to_copy_up(const Layout& layout) {
  std::vector<std::uint64_t> out;
  if (layout.layers.size() < kLayersMany) return out;
  const Layer* smallest = nullptr;
  std::uint64_t fewest = kCopiedUpMost + 1;
  for (const Layer& layer : layout.layers) {
    const std::uint64_t count = layer.chunks.count_below(kNoChunk);
    if (layer.frozen && count < fewest) {
      smallest = &layer;
      fewest = count;
    }
  }
  if (smallest == nullptr) return out;
  for (const Range& range : smallest->chunks.list()) {
    for (std::uint64_t index = range.from; index < range.to; ++index) out.push_back(index);
  }
  return out;
}

struct Answer {
  AttrRecord attr;
  Layout layout, source_layout;
};

// Nothing is dirty in the file, and no new bytes come in.
rpc::Task<Result<>> have_fewer_layers(FileContext& context, WriteBack& write_back, Reporter& reporter,
                                      InodeRef inode, Deadline deadline) {
  std::vector<rpc::Task<Result<>>> tasks;
  {
    std::lock_guard lock(inode->mutex);
    if (!inode->have_layout) co_return Result<>{};
    for (const std::uint64_t index : chunks_to_copy_up(inode->layout))
      tasks.push_back(write_back.copy_up(inode, index, deadline));
  }
  if (tasks.empty()) co_return Result<>{};
  CO_TRYV(co_await run_all(context.runtime, std::move(tasks), context.options.parallel_chunks));
  co_return co_await reporter.report(inode, Durable::kNo, deadline);
}

// The server said no: nothing has changed. After any other error it may have happened, or may still.
bool refused(const Error& error) {
  switch (error.code()) {
    case Code::kRange:
    case Code::kInvalidArgument:
    case Code::kUnimplemented:
    case Code::kNoSpace:
    case Code::kNotFound:
      return true;
    default:
      return false;
  }
}

// Under the inode's mutex: what is said about its room may go on.
void end_extending(Inode& inode) {
  inode.file->extending = false;
  inode.file->settled.notify();
}

void forget_layout(Inode& inode) {
  std::lock_guard lock(inode.mutex);
  inode.have_layout = false;
  ++inode.layout_changes;
}

struct Asked {
  ChunkShare what;
  std::uint64_t source_generation = 0, generation = 0;
  SessionId session;
};

rpc::Task<Result<Answer>> ask(FileContext& context, InodeId source, InodeId target, Asked asked,
                              Deadline deadline) {
  std::function<void(schema::ShareChunksRequest::Builder)> fill =
      [=](schema::ShareChunksRequest::Builder body) {
        body.setSource(source.value());
        body.setSourceGeneration(asked.source_generation);
        body.setTarget(target.value());
        body.setGeneration(asked.generation);
        body.setFrom(asked.what.from);
        body.setTo(asked.what.to);
        body.setCount(asked.what.count);
        body.setBytes(asked.what.bytes);
      };
  auto reply = co_await context.session.mutate<rpc::method::ShareChunks>(std::move(fill), deadline, nullptr,
                                                                         asked.session);
  if (!reply) co_return fail(std::move(reply.error()));
  co_return decoded("ShareChunks", [&] {
    return Answer{decode((*reply)->getAttr()), decode((*reply)->getLayout()),
                  decode((*reply)->getSourceLayout())};
  });
}

}  // namespace

bool has_own_chunks(const Inode& inode, std::uint64_t from, std::uint64_t count) {
  const FileData& file = *inode.file;
  if (!file.dirty.empty()) return true;
  const std::uint64_t end = std::min(from + count, chunks_of(inode.size(), inode.layout.chunk_size()));
  for (std::uint64_t index = from; index < end; ++index) {
    if (!file.holes.contains(index) && inode.layout.frozen_layer_of(index) == nullptr) return true;
  }
  return false;
}

rpc::Task<Result<>> share_chunks(FileContext& context, Leases& leases, WriteBack& write_back,
                                 Reporter& reporter, InodeRef source, InodeRef target, ChunkShare what,
                                 Deadline deadline) {
  InUse source_in_use(context, write_back, source);
  InUse target_in_use(context, write_back, target);
  const bool same = source == target;
  bool room_returned = false;
  for (;;) {
    Lease needed = Lease::kShared;
    CO_TRYV(co_await leases.ensure(source, Lease::kShared, deadline));
    {
      std::lock_guard lock(source->mutex);
      if (!source->have_layout || !context.inodes.usable(*source)) continue;
      // What its holder knows only he knows: also which chunks became holes.
      if (same || source->lease == Lease::kExclusive || has_own_chunks(*source, what.from, what.count))
        needed = Lease::kExclusive;
    }
    CO_TRYV(co_await leases.ensure(source, needed, deadline));
    if (!same) CO_TRYV(co_await leases.ensure(target, Lease::kExclusive, deadline));
    // In each round anew: a recall waits for it, and we for the recall. Two files always in the same order.
    InodeRef first = source->id < target->id ? source : target;
    InodeRef second = source->id < target->id ? target : source;
    auto first_turn = co_await first->file->changing.take(1, deadline);
    if (!first_turn) co_return fail(first_turn.error().with("waiting for another change of the file"));
    Budget::Hold second_turn;
    if (!same) {
      auto turn = co_await second->file->changing.take(1, deadline);
      if (!turn) co_return fail(turn.error().with("waiting for another change of the file"));
      second_turn = std::move(*turn);
    }
    Blocked source_blocked(source);
    Blocked target_blocked(target);
    {
      std::lock_guard lock(source->mutex);
      if (!context.inodes.usable(*source, needed) || source->recalling || !source->have_layout) continue;
    }
    {
      std::lock_guard lock(target->mutex);
      if (!context.inodes.usable(*target, Lease::kExclusive) || target->recalling || !target->have_layout)
        continue;
    }
    // What is frozen is durable, and nothing written before may be stored, or be written again after a loss,
    // in place of what is shared.
    if (needed == Lease::kExclusive && !same) {
      CO_TRYV(co_await write_back.make_durable(source, true, deadline));
      CO_TRYV(co_await reporter.report(source, Durable::kNo, deadline));
    }
    CO_TRYV(co_await write_back.make_durable(target, true, deadline));
    CO_TRYV(co_await reporter.report(target, Durable::kNo, deadline));
    if (needed == Lease::kExclusive)
      CO_TRYV(co_await have_fewer_layers(context, write_back, reporter, source, deadline));
    Asked asked{what, 0, 0, {}};
    std::uint64_t source_serial = 0;
    std::vector<ChunkWrite> old;
    std::shared_ptr<rpc::Event> settled;
    {
      std::lock_guard lock(source->mutex);
      if (needed == Lease::kExclusive) asked.source_generation = source->generation;
      source_serial = source->lease_serial;
    }
    {
      std::lock_guard lock(target->mutex);
      if (!target->have_layout) continue;
      // Neither may overtake what else is said about the room that a quota leaves.
      if (target->file->extending || target->file->reporting) {
        settled = target->file->settled.next(context.runtime);
      } else {
        target->file->extending = true;
      }
      asked.generation = target->generation;
      asked.session = target->session;
      old = removals(*target, what);
    }
    if (settled) {
      CO_TRYV(co_await settled->wait(deadline));
      continue;
    }
    auto answer = co_await ask(context, source->id, target->id, asked, deadline);
    if (!answer) {
      {
        std::lock_guard lock(target->mutex);
        end_extending(*target);
      }
      if (answer.error().code() == Code::kLeaseLost && !deadline.passed(context.runtime.clock())) continue;
      if (answer.error().code() == Code::kQuotaExceeded) {
        // Refused: nothing has changed. What files here were allowed ahead may be what is missing.
        if (room_returned) co_return fail(std::move(answer.error()));
        room_returned = true;
        const bool returned = co_await write_back.return_room(deadline);
        if (!returned) co_return fail(std::move(answer.error()));
        continue;
      }
      // If it happened, our layouts are old, and a chunk that they call the file's own may be frozen.
      if (!refused(answer.error())) {
        forget_layout(*source);
        forget_layout(*target);
      }
      co_return fail(std::move(answer.error()));
    }
    if (!same) {
      std::lock_guard lock(source->mutex);
      if (source->lease_serial == source_serial && source->have_layout && answer->source_layout.valid()) {
        source->layout.layers = std::move(answer->source_layout.layers);
        source->file->meta_dirty = true;
      }
    }
    {
      std::lock_guard lock(target->mutex);
      end_extending(*target);
      if (target->session != asked.session || target->lease != Lease::kExclusive) co_return Result<>{};
      Leases::adopt(*target, *target->file, answer->attr, answer->layout);
      target->file->meta_dirty = true;
      // The file's own layer may have become frozen itself: then its chunks are not ours to remove.
      if (!target->have_layout || old.empty() ||
          target->layout.layers.front().data != old.front().target.chunk.data)
        co_return Result<>{};
    }
    auto removed = co_await sync_journal(context, deadline);
    std::vector<rpc::Task<Result<>>> tasks;
    for (ChunkWrite& removal : old) tasks.push_back(cut_chunk(context, std::move(removal), deadline));
    if (removed)
      removed = co_await run_all(context.runtime, std::move(tasks), context.options.parallel_chunks);
    if (!removed)  // they go with the file
      log_debug("replaced_chunks_left", "inode={} error={}", to_string(target->id),
                log_quote(removed.error().to_string()));
    co_return Result<>{};
  }
}

}  // namespace cairn::client
