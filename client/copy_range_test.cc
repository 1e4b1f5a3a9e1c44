// copy_file_range and what is written to files that share chunks. The random test of both:
// files_model_test.cc.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <mutex>
#include <thread>

#include "client/fake_cluster.h"

namespace cairn::client {
namespace {

std::string varied(std::size_t size) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>(i * 31 + i / 977);
  return out;
}

class CopyRange : public testing::Test {
 protected:
  static constexpr std::uint64_t kChunk = 256 << 10;
  using Write = rpc::method::Write;
  using Read = rpc::method::Read;
  CopyRange() : client_(cluster_.connect()), fs_(client_->files()) {}

  Handle create(const std::string& name) {
    auto opened = fs_.block_on<Opened>(fs_.create(kRootInode, name, 0644, O_RDWR | O_CREAT | O_EXCL, {1, 1}));
    EXPECT_TRUE(opened) << opened.error().to_string();
    return opened ? opened->handle : nullptr;
  }
  void write(const Handle& handle, std::uint64_t offset, std::string_view text) {
    auto done = fs_.block_on<std::uint32_t>(fs_.write(handle, offset, rpc::Buffer::copy(as_bytes(text))));
    ASSERT_TRUE(done) << done.error().to_string();
    ASSERT_EQ(*done, text.size());
  }
  std::string read(const Handle& handle, std::uint64_t offset, std::uint32_t length) {
    auto payload = fs_.block_on<rpc::Payload>(fs_.read(handle, offset, length));
    EXPECT_TRUE(payload) << payload.error().to_string();
    std::string out;
    if (payload) {
      for (const auto& piece : payload->pieces) out += as_text(piece.bytes());
    }
    return out;
  }
  void sync(const Handle& handle) {
    auto done = fs_.block_on<void>(fs_.fsync(handle, false));
    ASSERT_TRUE(done) << done.error().to_string();
  }
  std::uint64_t copy(const Handle& from, std::uint64_t from_offset, const Handle& to, std::uint64_t to_offset,
                     std::uint64_t length) {
    auto done = fs_.block_on<std::uint64_t>(fs_.copy_range(from, from_offset, to, to_offset, length));
    EXPECT_TRUE(done) << done.error().to_string();
    return done.value_or(0);
  }

  FakeCluster cluster_;
  std::unique_ptr<ClientImpl> client_;
  FileSystem& fs_;
};

TEST_F(CopyRange, MovesNoBytesAndWritesOnlyWhatChangesLater) {
  const std::string bytes = varied(3 * kChunk + 1000);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  sync(a);
  cluster_.reset_counts();
  ASSERT_EQ(copy(a, 0, b, 0, 1 << 30), bytes.size());
  EXPECT_EQ(cluster_.requests(Write::kNumber), 0u);
  EXPECT_EQ(cluster_.requests(Read::kNumber), 0u);
  EXPECT_EQ(read(b, 0, 1 << 20), bytes);
  cluster_.reset_counts();
  write(b, kChunk + 10, "changed");
  sync(b);
  EXPECT_EQ(cluster_.requests(Write::kNumber), 1u);
  std::string expected = bytes;
  expected.replace(kChunk + 10, 7, "changed");
  EXPECT_EQ(read(b, 0, 1 << 20), expected);
  EXPECT_EQ(read(a, 0, 1 << 20), bytes);
  // The source writes to a layer of its own now.
  write(a, 0, "other");
  sync(a);
  EXPECT_EQ(read(b, 0, 1 << 20), expected);
}

TEST_F(CopyRange, AChunkThatIsWhollyOverwrittenIsNotReadFirst) {
  const Handle a = create("a"), b = create("b");
  write(a, 0, varied(2 * kChunk));
  ASSERT_EQ(copy(a, 0, b, 0, 2 * kChunk), 2 * kChunk);
  cluster_.reset_counts();
  write(b, 0, std::string(kChunk, 'x'));
  sync(b);
  EXPECT_EQ(cluster_.requests(Read::kNumber), 0u);
  EXPECT_EQ(read(b, 0, 1 << 20), std::string(kChunk, 'x') + varied(2 * kChunk).substr(kChunk));
}

// The holder alone knew that the chunk had become a hole: the copy got the old bytes.
TEST_F(CopyRange, WhatWasPunchedJustNowIsAHoleOfTheCopy) {
  const Handle a = create("a"), b = create("b"), c = create("c");
  write(a, 0, varied(2 * kChunk));
  ASSERT_EQ(copy(a, 0, b, 0, 2 * kChunk), 2 * kChunk);
  auto punched = fs_.block_on<void>(fs_.allocate(b, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kChunk));
  ASSERT_TRUE(punched);
  ASSERT_EQ(copy(b, 0, c, 0, 2 * kChunk), 2 * kChunk);
  EXPECT_EQ(read(c, 0, 1 << 20), std::string(kChunk, '\0') + varied(2 * kChunk).substr(kChunk));
}

// The bytes around a write into a shared chunk are in no memory: had they been stored without a sync, a loss
// would have taken them.
TEST_F(CopyRange, ALossOfUnsyncedBytesTakesNothingOfACopiedChunk) {
  const std::string bytes = varied(2 * kChunk);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  ASSERT_EQ(copy(a, 0, b, 0, bytes.size()), bytes.size());
  write(b, 5, "new");
  write(b, kChunk - 1, "border");
  ASSERT_EQ(copy(b, 100, a, 100, 1), 1u);  // a read of b
  auto truncated = [&] {                   // stores what is dirty, and syncs nothing by itself
    SetAttr change;
    change.valid = kSetSize;
    change.attr.size = bytes.size() - 10;
    return fs_.block_on<Entry>(fs_.setattr(b->inode->id, change));
  }();
  ASSERT_TRUE(truncated);
  cluster_.lose_unsynced();
  sync(b);
  std::string expected = bytes.substr(0, bytes.size() - 10);
  expected.replace(5, 3, "new");
  expected.replace(kChunk - 1, 6, "border");
  EXPECT_EQ(read(b, 0, 1 << 20), expected);
}

TEST_F(CopyRange, ALostReplyChangesNothing) {
  const std::string bytes = varied(2 * kChunk + 5);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  sync(a);
  auto lost = std::make_shared<std::atomic<int>>(0);
  cluster_.on_request([lost](int, std::uint16_t method) {
    return method == rpc::method::ShareChunks::kNumber && lost->fetch_add(1) == 0 ? Fault::kLoseReply
                                                                                  : Fault::kNone;
  });
  EXPECT_EQ(copy(a, 0, b, 0, bytes.size()), bytes.size());
  EXPECT_GE(lost->load(), 2);
  write(a, 1, "a");
  write(b, 2, "b");
  sync(a);
  sync(b);
  std::string want_a = bytes, want_b = bytes;
  want_a[1] = 'a';
  want_b[2] = 'b';
  EXPECT_EQ(read(a, 0, 1 << 20), want_a);
  EXPECT_EQ(read(b, 0, 1 << 20), want_b);
}

// The chunk in which the file was to end had been copied up to there only: the server let go of the rest.
TEST_F(CopyRange, ACutThatIsRefusedTakesNothing) {
  const std::string bytes = varied(2 * kChunk);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  ASSERT_EQ(copy(a, 0, b, 0, bytes.size()), bytes.size());
  cluster_.on_request([](int, std::uint16_t method) {
    return method == rpc::method::SetAttr::kNumber ? Fault::kNoSpace : Fault::kNone;
  });
  SetAttr change;
  change.valid = kSetSize;
  change.attr.size = kChunk + 1000;
  auto cut = fs_.block_on<Entry>(fs_.setattr(b->inode->id, change));
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code(), Code::kNoSpace);
  EXPECT_TRUE(read(b, 0, 1 << 20) == bytes);
  cluster_.on_request(nullptr);
  ASSERT_TRUE(fs_.block_on<Entry>(fs_.setattr(b->inode->id, change)));
  EXPECT_TRUE(read(b, 0, 1 << 20) == bytes.substr(0, kChunk + 1000));
  EXPECT_TRUE(read(a, 0, 1 << 20) == bytes);
}

// The source is held exclusively when the server refuses, and can still be read.
TEST_F(CopyRange, WhatCannotBeSharedIsCopied) {
  const std::string bytes = varied(2 * kChunk + 5);
  const Handle a = create("a"), b = create("b"), c = create("c");
  write(a, 0, bytes);
  auto fault = std::make_shared<std::atomic<Fault>>(Fault::kRange);
  cluster_.on_request([fault](int, std::uint16_t method) {
    return method == rpc::method::ShareChunks::kNumber ? fault->load() : Fault::kNone;
  });
  cluster_.reset_counts();
  EXPECT_EQ(copy(a, 0, b, 0, bytes.size()), bytes.size());
  EXPECT_EQ(cluster_.requests(rpc::method::Open::kNumber), 0u) << "nothing has changed";
  EXPECT_EQ(read(b, 0, 1 << 20), bytes);
  *fault = Fault::kNoSpace;
  auto full = fs_.block_on<std::uint64_t>(fs_.copy_range(a, 0, c, 0, bytes.size()));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), Code::kNoSpace);
  EXPECT_EQ(read(a, 0, 1 << 20), bytes);
  EXPECT_EQ(read(c, 0, 1 << 20), "");
}

TEST_F(CopyRange, AnAnswerThatNeverCameMayHaveBeenYes) {
  const std::string bytes = varied(2 * kChunk + 5);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  cluster_.on_request([](int, std::uint16_t method) {
    return method == rpc::method::ShareChunks::kNumber ? Fault::kTimeout : Fault::kNone;
  });
  auto lost = fs_.block_on<std::uint64_t>(fs_.copy_range(a, 0, b, 0, bytes.size()));
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code(), Code::kTimeout);
  EXPECT_EQ(read(a, 0, 1 << 20), bytes);
  // The old bytes are frozen now.
  write(a, 1, "a");
  sync(a);
  EXPECT_EQ(read(b, 0, 1 << 20), bytes);
  std::string expected = bytes;
  expected[1] = 'a';
  EXPECT_EQ(read(a, 0, 1 << 20), expected);
}

// The server lets go of the old bytes, which were synced, when it is told of the new ones.
TEST_F(CopyRange, AChunkThatIsWhollyOverwrittenIsSyncedBeforeItIsReported) {
  const Handle a = create("a"), b = create("b");
  write(a, 0, varied(2 * kChunk));
  ASSERT_EQ(copy(a, 0, b, 0, 2 * kChunk), 2 * kChunk);
  sync(b);
  write(b, 0, std::string(kChunk, 'x'));
  SetAttr grow;  // stores what is dirty, reports it, and syncs nothing by itself
  grow.valid = kSetSize;
  grow.attr.size = 3 * kChunk;
  ASSERT_TRUE(fs_.block_on<Entry>(fs_.setattr(b->inode->id, grow)));
  EXPECT_EQ(cluster_.unsynced_chunks(), 0u);
}

// A metadata server that loses power comes back with the record of before, if that is all that was synced.
TEST_F(CopyRange, WhatIsReplacedOrCutGoesOnlyWhenTheJournalIsSynced) {
  const Handle a = create("a"), b = create("b");
  write(a, 0, varied(2 * kChunk));
  write(b, 0, varied(3 * kChunk));
  sync(a);
  sync(b);
  std::mutex mutex;
  std::vector<std::uint16_t> asked;
  cluster_.on_request([&](int, std::uint16_t method) {
    std::lock_guard lock(mutex);
    if (method == rpc::method::ShareChunks::kNumber || method == rpc::method::SetAttr::kNumber ||
        method == rpc::method::SyncMeta::kNumber || method == Write::kNumber)
      asked.push_back(method);
    return Fault::kNone;
  });
  const auto order = [&] {
    std::lock_guard lock(mutex);
    return std::exchange(asked, {});
  };
  using Methods = std::vector<std::uint16_t>;
  constexpr auto kSync = rpc::method::SyncMeta::kNumber, kWrite = Write::kNumber;
  ASSERT_EQ(copy(a, 0, b, 0, 2 * kChunk), 2 * kChunk);
  EXPECT_EQ(order(), (Methods{rpc::method::ShareChunks::kNumber, kSync, kWrite, kWrite}));
  SetAttr cut;
  cut.valid = kSetSize;
  cut.attr.size = 2 * kChunk;
  ASSERT_TRUE(fs_.block_on<Entry>(fs_.setattr(b->inode->id, cut)));
  EXPECT_EQ(order(), (Methods{rpc::method::SetAttr::kNumber, kSync, kWrite}));
  cut.attr.size = 0;  // nothing of its own is left
  ASSERT_TRUE(fs_.block_on<Entry>(fs_.setattr(b->inode->id, cut)));
  EXPECT_EQ(order(), (Methods{rpc::method::SetAttr::kNumber}));
  cluster_.on_request(nullptr);
}

// The size was looked at before the leases were taken. The copy had the bytes of later, and said it had
// others.
TEST_F(CopyRange, TakesAsManyBytesAsItSaysThoughTheSourceChanges) {
  const std::string bytes = varied(2 * kChunk + 1000);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  cluster_.on_request([&](int, std::uint16_t method) {
    if (method == rpc::method::ShareChunks::kNumber) cluster_.resize(a->inode->id, 2 * kChunk + 10);
    return Fault::kNone;
  });
  const std::uint64_t copied = copy(a, 0, b, 0, bytes.size());
  cluster_.on_request(nullptr);
  EXPECT_TRUE(read(b, 0, 1 << 20) == bytes.substr(0, copied));
}

// A writer that died before it reported left a chunk in the file's own layer: nobody sees it, and the next
// write there does not stand on it.
TEST_F(CopyRange, AChunkThatWasNeverReportedIsNobodys) {
  const std::string bytes = varied(2 * kChunk);
  const Handle a = create("a"), b = create("b");
  write(a, 0, bytes);
  ASSERT_EQ(copy(a, 0, b, 0, bytes.size()), bytes.size());
  sync(b);
  const InodeId id = b->inode->id;
  cluster_.on_request([](int, std::uint16_t method) {
    return method == rpc::method::Report::kNumber ? Fault::kUnavailable : Fault::kNone;
  });
  write(b, 0, std::string(kChunk, 'x'));  // stored, as the chunk is full
  for (int i = 0; i < 10'000 && cluster_.requests(Write::kNumber) < 3; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  cluster_.end_session(client_->session());
  cluster_.on_request(nullptr);
  auto other = cluster_.connect();
  FileSystem& files = other->files();
  auto opened = files.block_on<Opened>(files.open(id, O_RDWR));
  ASSERT_TRUE(opened) << opened.error().to_string();
  auto wrote =
      files.block_on<std::uint32_t>(files.write(opened->handle, 7, rpc::Buffer::copy(as_bytes("n"))));
  ASSERT_TRUE(wrote);
  ASSERT_TRUE(files.block_on<void>(files.fsync(opened->handle, false)));
  auto payload = files.block_on<rpc::Payload>(files.read(opened->handle, 0, 1 << 20));
  ASSERT_TRUE(payload);
  std::string got, expected = bytes;
  for (const auto& piece : payload->pieces) got += as_text(piece.bytes());
  expected[7] = 'n';
  EXPECT_TRUE(got == expected);
}

TEST_F(CopyRange, CanBeClonedAgainAndAgain) {
  std::string bytes = varied(3 * kChunk);
  const Handle a = create("a");
  write(a, 0, bytes);
  for (int i = 0; i < 150; ++i) {
    const Handle clone = create("clone" + std::to_string(i));
    ASSERT_EQ(copy(a, 0, clone, 0, bytes.size()), bytes.size());
    const std::uint64_t at = static_cast<std::uint64_t>(i) * 7919 % bytes.size();
    write(a, at, "x");
    bytes[at] = 'x';
    if (i % 50 == 0) {
      ASSERT_TRUE(read(a, 0, 1 << 20) == bytes);
    }
  }
  EXPECT_TRUE(read(a, 0, 1 << 20) == bytes);
}

// A copy counts like bytes that are written: what it needs is asked for with it, and what is written to the
// copied chunks later needs nothing more.
TEST_F(CopyRange, CountsForAQuotaAsIfItWereBytes) {
  const std::string bytes = varied(3 * kChunk);
  const Handle a = create("a");
  write(a, 0, bytes);
  sync(a);
  cluster_.set_quota(9 * kChunk);  // a's bytes were written before
  const Handle other = create("other"), b = create("b"), c = create("c"), d = create("d");
  write(other, 0, "x");  // allowed all that there is, and needs little of it
  ASSERT_EQ(copy(a, 0, b, 0, bytes.size()), bytes.size());
  write(b, 0, "changed");
  sync(b);
  write(b, 3 * kChunk, std::string(kChunk, 'x'));
  ASSERT_EQ(copy(a, 0, c, 0, bytes.size()), bytes.size());
  auto refused = fs_.block_on<std::uint64_t>(fs_.copy_range(a, 0, d, 0, bytes.size()));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kQuotaExceeded);
  EXPECT_EQ(read(d, 0, 1), "");
  EXPECT_EQ(copy(a, 0, d, 0, kChunk), kChunk) << "what fits is taken";
  EXPECT_EQ(copy(a, 0, c, kChunk, kChunk), kChunk) << "nothing new is needed for what is there";
  EXPECT_EQ(read(d, 0, 1 << 20), bytes.substr(0, kChunk));
  for (const Handle& handle : {a, b, c, d, other}) sync(handle);
}

}  // namespace
}  // namespace cairn::client
