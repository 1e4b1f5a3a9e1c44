#include "client/shared_chunk.h"

#include <cstring>

namespace cairn::client {

rpc::Task<Result<rpc::Buffer>> read_shared(FileContext& context, ChunkTarget shared, std::uint32_t length,
                                           Deadline deadline) {
  auto stored = co_await context.chunks.read(shared, 0, length, Presence::kMust, deadline);
  if (!stored) co_return fail(stored.error().with("copying a shared chunk"));
  rpc::Buffer whole = rpc::Buffer::allocate(length);
  std::byte* to = whole.writable().data();
  const std::size_t have = std::min<std::size_t>(stored->size(), length);
  std::memcpy(to, stored->bytes().data(), have);
  std::memset(to + have, 0, length - have);
  co_return whole;
}

rpc::Task<Result<std::vector<ChunkBytes::Run>>> with_shared_bytes(FileContext& context, ChunkTarget shared,
                                                                  std::shared_ptr<const ChunkBytes> bytes,
                                                                  std::uint32_t length, Deadline deadline) {
  auto runs = bytes->runs();
  if (runs.size() == 1 && runs.front().offset == 0 && runs.front().size >= length) co_return runs;
  std::uint32_t end = length;
  for (const auto& run : runs) end = std::max(end, run.offset + run.size);
  auto read = co_await read_shared(context, shared, end, deadline);
  if (!read) co_return fail(std::move(read.error()));
  rpc::Buffer whole = std::move(*read);
  for (const auto& run : runs) {
    std::byte* to = whole.writable().data() + run.offset;
    for (const auto& piece : run.payload.pieces) {
      std::memcpy(to, piece.bytes().data(), piece.size());
      to += piece.size();
    }
  }
  ChunkBytes::Run run{0, {}, end};
  run.payload.pieces.push_back(std::move(whole));
  runs.clear();
  runs.push_back(std::move(run));
  co_return runs;
}

}  // namespace cairn::client
