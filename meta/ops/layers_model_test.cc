// Random writes, cuts, punches, shared ranges, truncations and removals (also into the trash, and back) of a
// few files, compared with plain
// vectors of chunk contents. What a file's layout names must be there, with the right bytes; the reference
// counts are those of the layouts; and a data id is purged once, when no layout names it any more.
#include <gtest/gtest.h>

#include "meta/keys.h"
#include "meta/layers.h"
#include "meta/ops/testing.h"
#include "store/base/rng.h"

namespace cairn::meta {
namespace {

using testing::OpRunner;

constexpr std::uint64_t kChunk = 4096;
constexpr std::uint64_t kChunksMost = 24;
constexpr SessionId kSession{50};

// 0: zeros. A chunk cut in its middle has other contents than before.
using Content = std::uint64_t;

struct ModelFile {
  InodeId id;
  std::string name;
  std::vector<Content> chunks;
  std::uint64_t size = 0;
  LeaseGeneration generation;
};

class LayersModel : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  LayersModel() : rng_(GetParam()) {
    if (GetParam() % 2 == 0) runner_.retention_ns = INT64_MAX;
  }

  void make() {
    ops::MakeArgs args;
    args.parent = kRootInode;
    args.name = "f" + std::to_string(++names_);
    args.mode = S_IFREG | 0600;
    args.exclusive = args.open = true;
    auto made = runner_.run(kSession, [&](ops::Env& env) { return ops::make(env, args); });
    ASSERT_TRUE(made) << made.error().to_string();
    files_.push_back({made->inode.id, args.name, {}, 0, *made->exclusive});
  }
  ModelFile& any_file() { return files_[rng_.below(files_.size())]; }
  InodeRecord record_of(const ModelFile& file) {
    auto found = runner_.run(kSession, [&](ops::Env& env) { return ops::getattr(env, file.id); });
    EXPECT_TRUE(found);
    return found ? found->record : InodeRecord{};
  }
  void report(ModelFile& file, ops::ReportItem item) {
    item.inode = file.id;
    item.generation = file.generation;
    item.has_size = true;
    item.trim_done = true;
    item.size = file.size;
    item.bytes = file.size;
    auto result = runner_.run(kSession, [&](ops::Env& env) { return ops::report(env, {item}, true); });
    ASSERT_TRUE(result) << result.error().to_string();
    ASSERT_EQ(result->at(0), Code::kOk);
  }

  // The holder stores chunks in the file's own layer, as the client does: also those that were shared before.
  void write() {
    ModelFile& file = any_file();
    const std::uint64_t from = rng_.below(kChunksMost), to = from + 1 + rng_.below(4);
    auto bound = runner_.run(kSession, [&](ops::Env& env) {
      return ops::extend_bound(env, {file.id, file.generation, to});
    });
    ASSERT_TRUE(bound) << bound.error().to_string();
    const InodeRecord record = record_of(file);
    for (std::uint64_t i = from; i < to; ++i) store_[record.layers[0].data][i] = ++contents_;
    if (rng_.one_in(5)) {
      // It dies before it reports: what it stored is nobody's, unless the file had its own chunk there
      // already.
      for (const Range& own : own_chunks(record, {from, to})) {
        for (std::uint64_t i = own.from; i < own.to; ++i) file.chunks[i] = store_[record.layers[0].data][i];
      }
      return;
    }
    if (file.chunks.size() < to) file.chunks.resize(to);
    for (std::uint64_t i = from; i < to; ++i) file.chunks[i] = store_[record.layers[0].data][i];
    file.size = std::max(file.size, to * kChunk - rng_.below(kChunk));
    ops::ReportItem item;
    item.written = {{from, to}};
    report(file, item);
  }
  void punch() {
    ModelFile& file = any_file();
    if (file.chunks.empty()) return;
    const std::uint64_t from = rng_.below(file.chunks.size()), to = from + 1 + rng_.below(4);
    const std::uint64_t end = std::min<std::uint64_t>(to, file.chunks.size());
    for (std::uint64_t i = from; i < end; ++i) file.chunks[i] = 0;
    ops::ReportItem item;
    item.punched = {{from, end}};
    report(file, item);
  }
  void set_size() {
    ModelFile& file = any_file();
    const std::uint64_t size = rng_.one_in(6) ? 0 : rng_.below(kChunksMost * kChunk);
    const std::uint64_t chunks = (size + kChunk - 1) / kChunk;
    ops::SetAttrArgs args;
    args.inode = file.id;
    args.valid = ops::SetAttrArgs::kSize;
    args.size = size;
    args.generation = file.generation;
    const auto change = [&] {
      return runner_.run(kSession, [&](ops::Env& env) { return ops::setattr(env, args); });
    };
    const std::uint64_t boundary = size / kChunk;
    const InodeRecord before = record_of(file);
    auto done = change();
    if (size > 0 && size < file.size && size % kChunk != 0 && in_frozen_layer(before, boundary)) {
      ASSERT_FALSE(done);
      ASSERT_EQ(done.error().code(), Code::kInvalidArgument);
      // As told: the holder copies the chunk first.
      store_[before.layers[0].data][boundary] = file.chunks[boundary];
      auto bound = runner_.run(kSession, [&](ops::Env& env) {
        return ops::extend_bound(env, {file.id, file.generation, boundary + 1});
      });
      ASSERT_TRUE(bound);
      ops::ReportItem item;
      item.written = {{boundary, boundary + 1}};
      report(file, item);
      done = change();
    }
    ASSERT_TRUE(done) << done.error().to_string();
    file.chunks.resize(chunks);
    file.size = size;
    report(file, {});  // trimmed
  }
  void share() {
    ModelFile& source = any_file();
    ModelFile& target = any_file();
    ops::ShareArgs args;
    args.source = source.id;
    args.source_generation = source.generation;
    args.target = target.id;
    args.generation = target.generation;
    args.from = rng_.one_in(2) ? 0 : rng_.below(source.chunks.size() + 1);
    args.to = rng_.one_in(2) ? args.from : rng_.below(kChunksMost);
    const std::uint64_t most = source.chunks.size() - args.from;
    args.count = rng_.one_in(2) ? most : rng_.below(most + 2);
    auto shared = runner_.run(kSession, [&](ops::Env& env) { return ops::share_chunks(env, args); });
    const std::uint64_t end =
        args.to * kChunk +
        std::min(args.count * kChunk, source.size - std::min(source.size, args.from * kChunk));
    const bool overlap =
        source.id == target.id && args.from < args.to + args.count && args.to < args.from + args.count;
    if (args.count == 0 || args.count > most || overlap || (end % kChunk != 0 && target.size > end)) {
      ASSERT_FALSE(shared);
      ASSERT_EQ(shared.error().code(), Code::kInvalidArgument);
      return;
    }
    ASSERT_TRUE(shared) << shared.error().to_string();
    const std::vector<Content> bytes(source.chunks.begin() + static_cast<long>(args.from),
                                     source.chunks.begin() + static_cast<long>(args.from + args.count));
    if (target.chunks.size() < args.to + args.count) target.chunks.resize(args.to + args.count);
    std::copy(bytes.begin(), bytes.end(), target.chunks.begin() + static_cast<long>(args.to));
    target.size = std::max(target.size, end);
  }
  void remove() {
    if (files_.size() < 3) return;
    const std::size_t at = rng_.below(files_.size());
    remove_file(files_[at]);
    files_.erase(files_.begin() + static_cast<long>(at));
  }
  void remove_file(const ModelFile& file) {
    auto removed = runner_.run(kSession, [&](ops::Env& env) {
      return ops::remove(env, {kRootInode, file.name, false});
    });
    ASSERT_TRUE(removed);
    ASSERT_EQ(removed->kept, file.size > 0 && runner_.retention_ns > 0);
    if (removed->kept) trash_.push_back(file);
    ops::ReportItem item;
    item.inode = file.id;
    item.generation = file.generation;
    item.closed = 1;
    item.keep = ops::Keep::kNone;
    ASSERT_TRUE(runner_.run(kSession, [&](ops::Env& env) { return ops::report(env, {item}, false); }));
  }
  ModelFile take_trash(TrashId& id) {
    const std::size_t at = rng_.below(trash_.size());
    ModelFile file = std::move(trash_[at]);
    trash_.erase(trash_.begin() + static_cast<long>(at));
    auto listed = runner_.run(kSession, [&](ops::Env& env) {
      return ops::list_trash(env, {kRootInode, file.name, {}, 2});
    });
    EXPECT_TRUE(listed);
    EXPECT_EQ(listed->items.size(), 1u);
    id = listed->items.at(0).entry.id;
    return file;
  }
  void undelete() {
    if (trash_.empty() || files_.size() >= 6) return;
    TrashId id;
    ModelFile file = take_trash(id);
    auto back = runner_.run(kSession, [&](ops::Env& env) {
      return ops::undelete(env, {id, kRootInode, file.name});
    });
    ASSERT_TRUE(back) << back.error().to_string();
    auto opened = runner_.run(kSession, [&](ops::Env& env) {
      return ops::open(env, {file.id, true, false});
    });
    ASSERT_TRUE(opened && opened->exclusive);
    file.generation = *opened->exclusive;
    report(file, {});  // trimmed
    files_.push_back(std::move(file));
  }
  void empty_trash() {
    if (trash_.empty()) return;
    TrashId id;
    take_trash(id);
    auto emptied = runner_.run(kSession, [&](ops::Env& env) { return ops::empty_trash(env, {id}); });
    ASSERT_EQ(emptied, 1u);
  }

  // Purges remove what they say; then every chunk of every file is what it should be.
  void check() {
    const auto purges = runner_.cluster.purges();
    for (; purged_ < purges.size(); ++purged_) {
      const auto& purge = purges[purged_];
      ASSERT_TRUE(gone_.insert(purge.data).second) << "purged twice: " << to_string(purge.data);
      for (const auto& [index, content] : store_[purge.data])
        ASSERT_LT(index, purge.chunks) << "a chunk of " << to_string(purge.data) << " is left";
      store_.erase(purge.data);
    }
    std::map<DataId, std::uint64_t> references;
    std::set<DataId> named;
    std::vector<const ModelFile*> all;
    for (const ModelFile& file : files_) all.push_back(&file);
    for (const ModelFile& file : trash_) all.push_back(&file);
    for (const ModelFile* each : all) {
      const ModelFile& file = *each;
      const InodeRecord record = record_of(file);
      ASSERT_EQ(record.size, file.size);
      ASSERT_FALSE(record.layers[0].frozen);
      ASSERT_TRUE(named.insert(record.layers[0].data).second) << "two files own one data id";
      for (std::size_t l = 1; l < record.layers.size(); ++l) {
        ASSERT_TRUE(record.layers[l].frozen);
        ASSERT_FALSE(record.layers[l].chunks.empty());
        ++references[record.layers[l].data];
      }
      ASSERT_EQ(*InodeRecord::decode(record.encode()), record);
      for (std::uint64_t i = 0; i < file.chunks.size(); ++i)
        ASSERT_EQ(content(record, i), file.chunks[i]) << "chunk " << i << " of inode " << to_string(file.id);
    }
    for (const auto& [data, count] : references) {
      ASSERT_FALSE(named.contains(data)) << "a frozen data id is written to";
      auto row = runner_.kv.get(keys::data_ref(data)).value();
      ASSERT_TRUE(row) << to_string(data);
      ASSERT_EQ(DataRefRecord::decode(*row)->count, count);
      named.insert(data);
    }
    for (const auto& [data, chunks] : store_)
      ASSERT_TRUE(chunks.empty() || named.contains(data))
          << to_string(data) << " is nobody's, and not purged";
  }
  Content content(const InodeRecord& record, std::uint64_t index) {
    unsigned holders = contains(record.holes, index) ? 1 : 0;
    const LayerRecord* in = &record.layers[0];
    for (const LayerRecord& layer : record.layers) {
      if (!layer.frozen || !contains(layer.chunks, index)) continue;
      in = &layer;
      ++holders;
    }
    EXPECT_LE(holders, 1u) << "a chunk in two layers";
    if (contains(record.holes, index)) return 0;
    const auto& chunks = store_[in->data];
    auto found = chunks.find(index + static_cast<std::uint64_t>(in->shift));
    if (found == chunks.end()) {
      // Emptied in place, by its holder, when the file had too many holes: not in this test.
      ADD_FAILURE() << "no chunk " << index << " in " << to_string(in->data);
      return 0;
    }
    return found->second;
  }

  SeededRng rng_;
  OpRunner runner_;
  std::vector<ModelFile> files_;
  std::vector<ModelFile> trash_;
  std::map<DataId, std::map<std::uint64_t, Content>> store_;
  std::set<DataId> gone_;
  std::size_t purged_ = 0;
  Content contents_ = 0;
  int names_ = 0;
};

TEST_P(LayersModel, AgreesWithVectors) {
  for (int i = 0; i < 3; ++i) make();
  for (int step = 0; step < 1200 && !HasFailure(); ++step) {
    SCOPED_TRACE("seed " + std::to_string(GetParam()) + " step " + std::to_string(step));
    switch (rng_.below(14)) {
      case 0:
        if (files_.size() < 6) make();
        break;
      case 1:
        remove();
        break;
      case 2:
      case 3:
        set_size();
        break;
      case 4:
        punch();
        break;
      case 5:
      case 6:
      case 7:
        share();
        break;
      case 8:
        undelete();
        break;
      case 9:
        if (rng_.one_in(2)) empty_trash();
        break;
      default:
        write();
    }
    check();
  }
  for (const ModelFile& file : files_) remove_file(file);
  files_.clear();
  while (!trash_.empty() && !HasFailure()) empty_trash();
  check();
  const auto counters = runner_.run(kSession, [](ops::Env& env) { return load_counters(env.txn); });
  EXPECT_EQ(counters->trash_bytes, 0u);
  const auto root = runner_.run(kSession, [](ops::Env& env) { return load_directory(env.txn, kRootInode); });
  EXPECT_EQ(root->bytes, 0) << "bytes of files that are gone";
  for (const auto& [key, value] : runner_.kv.after_kill())
    EXPECT_NE(static_cast<KeyPrefix>(key[0]), KeyPrefix::kDataRef) << "a reference count is left";
}

INSTANTIATE_TEST_SUITE_P(Seeds, LayersModel, ::testing::Range<std::uint64_t>(1, 31));

class ShareLimits : public ::testing::Test {
 protected:
  struct Held {
    InodeId id;
    LeaseGeneration generation;
  };
  Held make(const std::string& name) {
    ops::MakeArgs args;
    args.parent = kRootInode;
    args.name = name;
    args.mode = S_IFREG | 0600;
    args.exclusive = args.open = true;
    auto made = runner_.run(kSession, [&](ops::Env& env) { return ops::make(env, args); });
    CHECK(made.has_value(), "made");
    return {made->inode.id, *made->exclusive};
  }
  void write(const Held& file, std::uint64_t chunks) {
    auto bound = runner_.run(kSession, [&](ops::Env& env) {
      return ops::extend_bound(env, {file.id, file.generation, chunks});
    });
    ASSERT_TRUE(bound);
    ops::ReportItem item;
    item.inode = file.id;
    item.generation = file.generation;
    item.has_size = true;
    item.size = item.bytes = chunks * kChunk;
    item.written = {{0, chunks}};
    auto result = runner_.run(kSession, [&](ops::Env& env) { return ops::report(env, {item}, true); });
    ASSERT_TRUE(result);
    ASSERT_EQ(result->at(0), Code::kOk);
  }
  Result<ops::ShareResult> share(const Held& from, const Held& to, std::uint64_t count) {
    ops::ShareArgs args{from.id, from.generation, to.id, to.generation, 0, 0, count};
    return runner_.run(kSession, [&](ops::Env& env) { return ops::share_chunks(env, args); });
  }
  OpRunner runner_;
};

TEST_F(ShareLimits, TheRecordStaysSmallWhateverIsWrittenLater) {
  runner_.cluster.set_space({});
  const Held source = make("a"), target = make("b"), large = make("c"), other = make("d");
  write(source, 2 * kLayerRangesMax);
  ASSERT_TRUE(share(source, target, 2 * kLayerRangesMax));
  // Every second chunk is written: as many ranges as there can be.
  ops::ReportItem item;
  item.inode = target.id;
  item.generation = target.generation;
  item.has_size = true;
  item.size = item.bytes = 2 * kLayerRangesMax * kChunk;
  auto bound = runner_.run(kSession, [&](ops::Env& env) {
    return ops::extend_bound(env, {target.id, target.generation, 2 * kLayerRangesMax});
  });
  ASSERT_TRUE(bound);
  for (std::uint64_t i = 1; i < 2 * kLayerRangesMax; i += 2) item.written.push_back({i, i + 1});
  auto result = runner_.run(kSession, [&](ops::Env& env) { return ops::report(env, {item}, true); });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->at(0), Code::kOk);
  auto record = runner_.run(kSession, [&](ops::Env& env) { return ops::getattr(env, target.id); });
  ASSERT_TRUE(record);
  EXPECT_EQ(record->record.layers.at(1).chunks.size(), kLayerRangesMax);
  EXPECT_LT(record->record.encode().size(), 200u << 10);

  write(large, 2 * kLayerRangesMax + 1);
  auto refused = share(large, other, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kRange);
}

TEST_F(ShareLimits, LeasesAreNeeded) {
  const Held source = make("a"), target = make("b");
  write(source, 2);
  Held wrong = target;
  wrong.generation = LeaseGeneration(target.generation.value() + 1);
  EXPECT_EQ(share(source, wrong, 2).error().code(), Code::kLeaseLost);
  wrong = source;
  wrong.generation = LeaseGeneration(source.generation.value() + 1);
  EXPECT_EQ(share(wrong, target, 2).error().code(), Code::kLeaseLost);
  ASSERT_TRUE(share(source, target, 2));
  EXPECT_TRUE(share(wrong, target, 2)) << "what is frozen needs no lease";
}

}  // namespace
}  // namespace cairn::meta
