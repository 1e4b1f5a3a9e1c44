#include "meta/records.h"

#include <gtest/gtest.h>

#include "meta/object_key.h"
#include "store/base/rng.h"

namespace cairn::meta {
namespace {

// A record decodes to itself; cut at each byte, with a byte too many, or of another version it is kCorrupt;
// and no change of bytes makes the decoder do more than refuse or return another record.
template <class Record>
void check_record(const Record& record) {
  const std::string bytes = record.encode();
  auto back = Record::decode(bytes);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(*back, record);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    auto cut = Record::decode(bytes.substr(0, n));
    ASSERT_FALSE(cut) << n;
    EXPECT_EQ(cut.error().code(), Code::kCorrupt);
  }
  EXPECT_FALSE(Record::decode(bytes + "x"));
  std::string other = bytes;
  other[0] = 99;
  EXPECT_FALSE(Record::decode(other));
  SeededRng rng(3);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = bytes;
    for (std::uint64_t n = rng.below(4) + 1; n > 0; --n) {
      damaged[rng.below(damaged.size())] = static_cast<char>(rng.next());
    }
    auto decoded = Record::decode(damaged);
    if (!decoded) continue;
    EXPECT_EQ(Record::decode(decoded->encode()), *decoded);
  }
}

InodeRecord some_inode() {
  InodeRecord inode;
  inode.mode = S_IFREG | 0644;
  inode.flags = InodeRecord::kHasXattrs;
  inode.nlink = 2;
  inode.uid = 1000;
  inode.gid = 100;
  inode.size = 123456789;
  inode.bytes = 4096;
  inode.atime = -5;
  inode.mtime = 6;
  inode.ctime = 7;
  inode.btime = 8;
  inode.change = 9;
  inode.parent = InodeId(77);
  inode.synced_size = 11;
  inode.bound = 12;
  inode.trim = {5, 9};
  inode.layers = {{DataId(3), PoolId(2), 4096, false, {}, 0},
                  {DataId(1), PoolId(2), 4096, true, {{0, 5}, {7, 9}}, -3}};
  inode.holes = {{1, 2}, {10, 100}};
  return inode;
}

TEST(RecordsTest, AFileThatSharesNothingIsWrittenAsByEarlierPrograms) {
  InodeRecord inode = some_inode();
  EXPECT_EQ(inode.encode()[0], 2);
  inode.layers.pop_back();
  EXPECT_EQ(inode.encode()[0], 1);
  check_record(inode);
}

TEST(RecordsTest, RoundTripTruncationDamage) {
  check_record(DataRefRecord{3, 77});
  check_record(some_inode());
  check_record(DirectoryRecord{InodeId(4), -1, 5, 6});
  check_record(DirectoryRecord{InodeId(4), -1, 5, 6, 1 << 20, 3, 0});
  check_record(TrashRecord{InodeId(4), 5, 0100644, 1, 2, 3, "host:7", "name"});
  check_record(Counters{1, 2, 3, 4, 5});
  EXPECT_EQ((Counters{1, 2, 3}.encode().front()), 1);
  EXPECT_EQ(DirectoryRecord{}.encode().front(), 1) << "older programs read directories without settings";
  check_record(DentryRecord{InodeId(4), S_IFDIR, 9});
  check_record(CookieRecord{InodeId(4), S_IFREG, "name"});
  check_record(SessionRecord{SessionRecord::State::kEnded, 4, 5, "host"});
  check_record(ExclusiveRecord{SessionId(4), LeaseGeneration(5)});
  check_record(CountRecord{7});
  ObjectRecord object;
  object.state = ObjectState::kSealed;
  object.size = 5;
  object.digest = {6, 7};
  object.data = DataId(8);
  object.pool = PoolId(1);
  object.lineage = "task";
  check_record(object);
  check_record(PendingRecord{SessionId(1), PoolId(2), 3, "key"});
  check_record(Counters{1, 2, 3});
}

TEST(RecordsTest, RangeCountBeyondTheBytesIsRefused) {
  InodeRecord inode = some_inode();
  inode.holes.clear();
  std::string bytes = inode.encode();
  bytes.replace(bytes.size() - 4, 4, "\xff\xff\xff\xff");  // claims four billion holes
  EXPECT_FALSE(InodeRecord::decode(bytes));
}

TEST(RangesTest, AgreesWithASet) {
  SeededRng rng(9);
  for (int round = 0; round < 200; ++round) {
    Ranges ranges;
    std::vector<bool> model(64);
    for (int i = 0; i < 30; ++i) {
      const Range r{rng.below(64), rng.below(65)};
      const bool add = rng.one_in(2);
      if (add) {
        add_range(ranges, r);
      } else {
        subtract_range(ranges, r);
      }
      for (std::uint64_t at = r.from; at < r.to; ++at) model[at] = add;
      ASSERT_TRUE(well_formed(ranges));
      std::vector<bool> got(64);
      for (const Range& have : ranges) {
        for (std::uint64_t at = have.from; at < have.to; ++at) got[at] = true;
      }
      ASSERT_EQ(got, model) << "round " << round;
    }
  }
}

TEST(ObjectKeyTest, RoundTripAndOrder) {
  const std::string nul(1, '\0');
  std::vector<ObjectKey> keys;
  for (const std::string& space : {std::string(), std::string("a"), "a" + nul, std::string("b")}) {
    for (const std::string& id : {std::string("x"), "x" + nul, "x" + nul + "\x01", std::string("x\x01"),
                                  std::string("xy"), std::string("\xff")}) {
      for (std::uint64_t version : {0ull, 1ull, 0x100ull}) keys.push_back({space, id, version});
    }
  }
  const auto less = [](const ObjectKey& a, const ObjectKey& b) {
    return std::tie(a.name_space, a.id, a.version) < std::tie(b.name_space, b.id, b.version);
  };
  for (const ObjectKey& a : keys) {
    EXPECT_EQ(decode_object_key(encode_object_key(a)).value(), a);
    for (const ObjectKey& b : keys) {
      EXPECT_EQ(encode_object_key(a) < encode_object_key(b), less(a, b))
          << to_string(a) << " " << to_string(b);
    }
    const std::string after = after_object(a.name_space, a.id);
    for (const ObjectKey& b : keys) {
      if (b.name_space != a.name_space) continue;
      EXPECT_EQ(encode_object_key(b) >= after, b.id > a.id);
    }
    const std::string bytes = encode_object_key(a);
    for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode_object_key(bytes.substr(0, n)));
  }
}

}  // namespace
}  // namespace cairn::meta
