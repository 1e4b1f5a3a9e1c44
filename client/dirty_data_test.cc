#include "client/dirty_data.h"

#include <gtest/gtest.h>

#include "client/chunk_io.h"
#include "client/ranges.h"
#include "store/base/rng.h"

namespace cairn::client {
namespace {

std::string bytes_of(const DirtyData& dirty, std::string base) {
  std::string out;
  for (const auto& part : dirty.parts(0, base.size())) {
    out +=
        part.gap() ? base.substr(part.from, part.to - part.from) : std::string(as_text(part.bytes.bytes()));
  }
  return out;
}

TEST(RangeSet, AddsAndRemovesLikeABitmap) {
  SeededRng rng(1);
  for (int round = 0; round < 200; ++round) {
    RangeSet set;
    std::vector<bool> model(64);
    for (int step = 0; step < 30; ++step) {
      const auto from = rng.below(64), to = from + rng.below(64 - from + 1);
      const bool add = rng.one_in(2);
      if (add) {
        set.add(from, to);
      } else {
        set.remove(from, to);
      }
      for (auto i = from; i < to; ++i) model[i] = add;
      std::uint64_t previous_end = UINT64_MAX;
      for (const auto& range : set.list()) {
        ASSERT_LT(range.from, range.to);
        ASSERT_NE(range.from, previous_end) << "neighbours are merged";
        previous_end = range.to;
      }
      for (std::uint64_t i = 0; i < 64; ++i) ASSERT_EQ(set.contains(i), model[i]) << i;
    }
  }
}

// Writes, flushes, cuts and losses in any order show the same bytes as a plain array.
TEST(DirtyData, ShowsWhatWasWrittenLikeAByteArray) {
  constexpr std::uint32_t kChunk = 64 << 10;
  constexpr std::uint64_t kSize = 4 * kChunk;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SeededRng rng(seed);
    DirtyData dirty;
    dirty.set_chunk_size(kChunk);
    std::string stored(kSize, '\0'), model = stored;
    std::map<std::uint64_t, std::shared_ptr<const ChunkBytes>> flushing;
    for (int step = 0; step < 200; ++step) {
      const std::uint64_t index = rng.below(4);
      switch (rng.below(6)) {
        case 0:
        case 1:
        case 2: {
          const std::uint64_t offset = rng.below(kSize),
                              length = 1 + rng.below(std::min<std::uint64_t>(kSize - offset, 20'000));
          const std::string data(length, static_cast<char>('a' + rng.below(26)));
          dirty.write(offset, as_bytes(data), rng.one_in(2));
          model.replace(offset, length, data);
          break;
        }
        case 3:
          if (dirty.has_active(index) && !dirty.is_flushing(index))
            flushing[index] = dirty.start_flush(index);
          break;
        case 4:
          if (auto it = flushing.find(index); it != flushing.end()) {
            const bool lost = rng.one_in(3);
            if (!lost) {
              for (const auto& run : it->second->runs()) {
                std::string text;
                for (const auto& piece : run.payload.pieces) text += as_text(piece.bytes());
                ASSERT_EQ(text.size(), run.size);
                stored.replace(index * kChunk + run.offset, run.size, text);
              }
            }
            dirty.end_flush(index);
            if (lost) dirty.restore(index, *it->second);
            flushing.erase(it);
          }
          break;
        case 5:
          if (flushing.empty() && rng.one_in(4)) {
            const std::uint64_t size = rng.below(kSize);
            dirty.cut(size);
            std::fill(stored.begin() + static_cast<long>(size), stored.end(), '\0');
            std::fill(model.begin() + static_cast<long>(size), model.end(), '\0');
          }
          break;
      }
      ASSERT_EQ(bytes_of(dirty, stored), model) << "seed " << seed << " step " << step;
    }
    for (auto& [index, bytes] : flushing) dirty.end_flush(index);
    dirty.clear();
    EXPECT_EQ(dirty.memory(), 0u) << "seed " << seed;
  }
}

// Lost bytes come back below what was written after them, also where that is being stored already.
TEST(DirtyData, LostBytesDoNotHideNewerOnesOnTheirWay) {
  DirtyData dirty;
  dirty.set_chunk_size(4096);
  dirty.write(0, as_bytes("OOOO"), true);
  const auto lost = dirty.start_flush(0);
  dirty.end_flush(0);
  dirty.write(1, as_bytes("N"), false);
  dirty.start_flush(0);
  dirty.restore(0, *lost);
  std::string seen;
  for (const auto& part : dirty.parts(0, 4)) seen += as_text(part.bytes.bytes());
  EXPECT_EQ(seen, "ONOO");
  EXPECT_FALSE(dirty.has_active(0) && dirty.parts(1, 2).front().gap());
  dirty.end_flush(0);
  EXPECT_TRUE(dirty.parts(1, 2).front().gap()) << "the older byte must not be stored over the newer one";
}

TEST(DirtyData, FrozenBytesDoNotChange) {
  DirtyData dirty;
  dirty.set_chunk_size(1 << 20);
  dirty.write(0, as_bytes("first"), true);
  auto frozen = dirty.start_flush(0);
  dirty.write(0, as_bytes("SECOND"), true);
  EXPECT_EQ(as_text(frozen->runs().front().payload.pieces.front().bytes()), "first");
  EXPECT_EQ(bytes_of(dirty, "......"), "SECOND");
}

TEST(DirtyData, MemoryNeededCoversWhatIsTaken) {
  SeededRng rng(5);
  DirtyData dirty;
  dirty.set_chunk_size(4 << 20);
  std::uint64_t at = 0;
  const std::string data(300'000, 'x');
  for (int i = 0; i < 300; ++i) {
    const std::size_t n = 1 + rng.below(data.size());
    const bool appends = !rng.one_in(4);
    const std::uint64_t taken =
        dirty.write(appends ? at : rng.below(at + 1), as_bytes(data).first(n), appends);
    EXPECT_LE(taken, DirtyData::memory_needed(n, appends));
    if (appends) at += n;
  }
}

TEST(Checksums, OfAPayloadInPiecesEqualThoseOfTheWhole) {
  SeededRng rng(3);
  for (int round = 0; round < 50; ++round) {
    std::string whole;
    rpc::Payload payload;
    for (std::uint64_t i = 0, n = 1 + rng.below(8); i < n; ++i) {
      std::string piece(1 + rng.below(50'000), static_cast<char>(rng.next()));
      whole += piece;
      payload.pieces.push_back(rpc::Buffer::take(std::move(piece)));
    }
    EXPECT_EQ(payload_checksums(payload), block_checksums(as_bytes(whole)));
  }
}

}  // namespace
}  // namespace cairn::client
