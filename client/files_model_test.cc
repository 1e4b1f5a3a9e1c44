// Random operations on files by two clients, compared with byte strings, while connections break, replies get
// lost and epochs change. A failure prints the seed.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "client/fake_cluster.h"
#include "store/base/rng.h"

namespace cairn::client {
namespace {

constexpr std::uint64_t kSizeMax = 1'200'000;
constexpr std::uint64_t kModelChunk = 256 << 10;

class Model {
 public:
  explicit Model(std::uint64_t seed) : rng_(seed), seed_(seed) {
    clients_.push_back(cluster_.connect(32 << 20));
    clients_.push_back(cluster_.connect(32 << 20));
    for (int i = 0; i < 2; ++i) {
      auto made = fs(0).block_on<Opened>(
          fs(0).create(kRootInode, "f" + std::to_string(i), 0644, O_RDWR | O_CREAT, {0, 0}));
      CHECK(made.has_value(), made ? "" : made.error().to_string());
      files_.push_back({made->entry.attr.inode, {}, {made->handle, nullptr}});
    }
  }

  void run(int steps, bool faults) {
    if (faults) {
      auto dice = std::make_shared<SeededRng>(seed_ * 7);
      auto mutex = std::make_shared<std::mutex>();
      cluster_.on_request([=](int, std::uint16_t method) {
        if (method == rpc::method::OpenSession::kNumber || method == rpc::method::Reassert::kNumber)
          return Fault::kNone;
        std::lock_guard lock(*mutex);
        if (!dice->one_in(60)) return Fault::kNone;
        return dice->one_in(3)   ? Fault::kUnavailable
               : dice->one_in(2) ? Fault::kLoseReply
                                 : Fault::kLoseRequest;
      });
    }
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
      SCOPED_TRACE("seed " + std::to_string(seed_) + " step " + std::to_string(step));
      one_step();
      if (faults && rng_.one_in(80)) cluster_.restart_meta();
    }
    for (auto& file : files_) {
      SCOPED_TRACE("seed " + std::to_string(seed_) + " at the end");
      check_all(file, 0);
      check_all(file, 1);
    }
    cluster_.on_request(nullptr);
  }

 private:
  struct File {
    InodeId inode;
    std::string model;
    Handle handles[2];
  };
  FileSystem& fs(unsigned client) { return clients_[client]->files(); }
  Handle& handle(File& file, unsigned client) {
    if (!file.handles[client]) {
      auto opened = fs(client).block_on<Opened>(fs(client).open(file.inode, O_RDWR));
      EXPECT_TRUE(opened) << opened.error().to_string();
      if (opened) file.handles[client] = opened->handle;
    }
    return file.handles[client];
  }

  void one_step() {
    File& file = files_[rng_.below(files_.size())];
    const auto client = static_cast<unsigned>(rng_.one_in(4) ? 1 : 0);
    const Handle opened = handle(file, client);
    ASSERT_TRUE(opened);
    switch (rng_.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: {
        const std::uint64_t offset = rng_.one_in(2) ? file.model.size() : rng_.below(kSizeMax);
        const std::size_t length = rng_.one_in(3) ? 1 + rng_.below(200'000) : 1 + rng_.below(5'000);
        std::string data(length, static_cast<char>(rng_.next()));
        auto done = fs(client).try_write(opened, offset, as_bytes(data));
        auto wrote = done ? std::move(*done)
                          : fs(client).block_on<std::uint32_t>(
                                fs(client).write(opened, offset, rpc::Buffer::copy(as_bytes(data))));
        ASSERT_TRUE(wrote) << wrote.error().to_string();
        if (file.model.size() < offset + length) file.model.resize(offset + length, '\0');
        file.model.replace(offset, length, data);
        break;
      }
      case 5:
      case 6:
      case 7: {
        const std::uint64_t offset = rng_.below(file.model.size() + 10);
        const auto length = static_cast<std::uint32_t>(1 + rng_.below(300'000));
        check(file, client, offset, length);
        break;
      }
      case 8: {
        auto synced = fs(client).block_on<void>(fs(client).fsync(opened, rng_.one_in(2)));
        ASSERT_TRUE(synced) << synced.error().to_string();
        break;
      }
      case 9: {
        SetAttr change;
        change.valid = kSetSize;
        change.attr.size = rng_.one_in(4) ? 0 : rng_.below(kSizeMax);
        auto set = fs(client).block_on<Entry>(fs(client).setattr(file.inode, change));
        ASSERT_TRUE(set) << set.error().to_string();
        file.model.resize(change.attr.size, '\0');
        ASSERT_EQ(set->attr.size, file.model.size());
        break;
      }
      case 10: {
        auto entry = fs(client).block_on<Entry>(fs(client).getattr(file.inode));
        ASSERT_TRUE(entry) << entry.error().to_string();
        ASSERT_EQ(entry->attr.size, file.model.size());
        break;
      }
      case 11:
        fs(client).release_now(opened);
        file.handles[client] = nullptr;
        if (rng_.one_in(6)) {
          auto again = fs(client).block_on<Opened>(fs(client).open(file.inode, O_RDWR | O_TRUNC));
          ASSERT_TRUE(again) << again.error().to_string();
          file.handles[client] = again->handle;
          file.model.clear();
        }
        break;
      case 12: {
        const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
        const int mode = modes[rng_.below(std::size(modes))];
        const std::uint64_t from = rng_.below(kSizeMax), to = from + 1 + rng_.below(kSizeMax - from);
        auto done = fs(client).block_on<void>(fs(client).allocate(opened, mode, from, to - from));
        ASSERT_TRUE(done) << done.error().to_string();
        if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && file.model.size() < to) file.model.resize(to, '\0');
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 && from < file.model.size()) {
          const std::uint64_t n = std::min<std::uint64_t>(to, file.model.size()) - from;
          file.model.replace(from, n, n, '\0');
        }
        break;
      }
      case 13: {
        const std::uint64_t from = rng_.below(kSizeMax);
        auto data =
            fs(client).block_on<std::optional<std::uint64_t>>(fs(client).seek(opened, from, SEEK_DATA));
        ASSERT_TRUE(data) << data.error().to_string();
        // What is passed over is zeros.
        const std::uint64_t until = std::min<std::uint64_t>(data->value_or(UINT64_MAX), file.model.size());
        if (from < until) {
          ASSERT_EQ(file.model.substr(from, until - from), std::string(until - from, '\0'));
        }
        auto hole =
            fs(client).block_on<std::optional<std::uint64_t>>(fs(client).seek(opened, from, SEEK_HOLE));
        ASSERT_TRUE(hole) << hole.error().to_string();
        ASSERT_EQ(hole->has_value(), from < file.model.size());
        if (*hole) {
          ASSERT_GE(**hole, from);
          ASSERT_LE(**hole, file.model.size());
        }
        break;
      }
      case 14:
      case 15:
        copy(files_[rng_.below(files_.size())], file, client);
        break;
    }
  }

  // Whole chunks mostly, so that they are shared; at other places of either file, or of one.
  void copy(File& from, File& to, unsigned client) {
    const Handle source = handle(from, client), target = handle(to, client);
    ASSERT_TRUE(source && target);
    const auto place = [&](std::uint64_t below) {
      const std::uint64_t at = rng_.below(below + 1);
      return rng_.one_in(4) ? at : at / kModelChunk * kModelChunk;
    };
    const std::uint64_t from_offset = place(from.model.size()), to_offset = place(kSizeMax);
    std::uint64_t left = rng_.one_in(2) ? kSizeMax : 1 + rng_.below(kSizeMax);
    if (from_offset < from.model.size()) left = std::min(left, from.model.size() - from_offset);
    if (&from == &to && from_offset < to_offset + left && to_offset < from_offset + left) return;
    std::uint64_t done = 0;
    while (left > 0) {
      auto copied = fs(client).block_on<std::uint64_t>(
          fs(client).copy_range(source, from_offset + done, target, to_offset + done, left));
      ASSERT_TRUE(copied) << copied.error().to_string();
      if (*copied == 0) break;
      done += *copied;
      left -= *copied;
    }
    ASSERT_EQ(done,
              from_offset < from.model.size() ? std::min(done + left, from.model.size() - from_offset) : 0);
    if (done == 0) return;
    const std::string bytes = from.model.substr(from_offset, done);
    if (to.model.size() < to_offset + done) to.model.resize(to_offset + done, '\0');
    to.model.replace(to_offset, done, bytes);
  }

  void check(File& file, unsigned client, std::uint64_t offset, std::uint32_t length) {
    const Handle opened = handle(file, client);
    ASSERT_TRUE(opened);
    auto known = fs(client).try_read(opened, offset, length);
    auto payload = known ? std::move(*known)
                         : fs(client).block_on<rpc::Payload>(fs(client).read(opened, offset, length));
    ASSERT_TRUE(payload) << payload.error().to_string();
    std::string got;
    for (const auto& piece : payload->pieces) got += as_text(piece.bytes());
    const std::string want = offset < file.model.size() ? file.model.substr(offset, length) : std::string();
    ASSERT_EQ(got.size(), want.size());
    if (got != want) {
      std::size_t at = 0;
      while (got[at] == want[at]) ++at;
      FAIL() << "bytes differ at " << offset + at << " of inode " << to_string(file.inode) << ": "
             << int(got[at]) << " instead of " << int(want[at]);
    }
  }
  void check_all(File& file, unsigned client) {
    for (std::uint64_t at = 0; at < file.model.size() + 1; at += 1 << 20) check(file, client, at, 1 << 20);
  }

  FakeCluster cluster_;
  SeededRng rng_;
  const std::uint64_t seed_;
  std::vector<std::unique_ptr<ClientImpl>> clients_;
  std::vector<File> files_;
};

TEST(FilesModel, TwoClients) {
  for (std::uint64_t seed = 1; seed <= 6 && !testing::Test::HasFatalFailure(); ++seed)
    Model(seed).run(250, false);
}

TEST(FilesModel, TwoClientsAndFaults) {
  for (std::uint64_t seed = 11; seed <= 16 && !testing::Test::HasFatalFailure(); ++seed)
    Model(seed).run(200, true);
}

}  // namespace
}  // namespace cairn::client
