#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "store/base/bytes.h"
#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/ids.h"
#include "store/base/log.h"
#include "store/base/rng.h"

namespace cairn {
namespace {

TEST(Ids, SlotsSplitInPlace) {
  SeededRng rng(1);
  for (int i = 0; i < 1000; ++i) {
    ChunkId chunk{DataId(rng.next()), static_cast<std::uint32_t>(rng.below(1000)), 0};
    std::uint32_t small = slot_of(placement_hash(chunk), 128);
    std::uint32_t large = slot_of(placement_hash(chunk), 256);
    EXPECT_EQ(large / 2, small);
  }
  EXPECT_EQ(slot_of(~0ULL, 1), 0u);
}

// The hash decides where every chunk lies: these numbers may never change (docs/formats.md quotes them).
TEST(Ids, PlacementHashVectors) {
  EXPECT_EQ(hex64(placement_hash({DataId(1), 0, 0})), "34ebb16e8a29e113");
  EXPECT_EQ(hex64(placement_hash({DataId(0x0001000000000002), 7, 1})), "99bed24de78eecbf");
}

TEST(Ids, TextForms) {
  EXPECT_EQ(to_string(ChunkId{DataId(0xab), 3, 0}), "00000000000000ab.3.0");
  EXPECT_EQ(to_string(GroupId{PoolId(1), 17}), "1/17");
  EXPECT_EQ(*parse_hex64("00000000000000ab"), 0xabu);
  EXPECT_EQ(parse_hex64("xyz").error().code(), Code::kInvalidArgument);
  EXPECT_EQ(parse_hex64("").error().code(), Code::kInvalidArgument);
}

TEST(Ids, VersionsOrderByEpochFirst) {
  EXPECT_LT((Version{Epoch(1), 99}), (Version{Epoch(2), 0}));
}

TEST(Bytes, ReaderNeverPassesTheEnd) {
  std::string out;
  ByteWriter w(out);
  w.be16(0x1234);
  w.u32(7);
  w.text("abc");
  ByteReader r(out);
  EXPECT_EQ(r.be16(), 0x1234);
  EXPECT_EQ(r.u32(), 7u);
  EXPECT_EQ(r.text(), "abc");
  EXPECT_TRUE(r.done());
  EXPECT_EQ(r.u64(), 0u);
  EXPECT_FALSE(r.ok());
  for (std::size_t cut = 0; cut < out.size(); ++cut) {
    ByteReader short_reader(std::string_view(out).substr(0, cut));
    short_reader.be16();
    short_reader.u32();
    short_reader.text();
    EXPECT_FALSE(short_reader.ok()) << cut;
  }
}

TEST(Checksum, DigestIgnoresHowBytesArrive) {
  std::string data(3 * kDigestPiece + 12345, 'x');
  SeededRng rng(2);
  for (char& c : data) c = static_cast<char>(rng.next());
  Digest whole = digest_of(as_bytes(data));
  DigestBuilder pieces;
  for (std::size_t at = 0; at < data.size();) {
    std::size_t n = std::min<std::size_t>(1 + rng.below(400000), data.size() - at);
    pieces.add(as_bytes(std::string_view(data).substr(at, n)));
    at += n;
  }
  EXPECT_EQ(to_string(pieces.finish()), to_string(whole));
  data.back() ^= 1;
  EXPECT_NE(digest_of(as_bytes(data)), whole);
  EXPECT_NE(digest_of({}), whole);
}

TEST(Checksum, FindsTheBadBlock) {
  std::string data(5 * kBlockSize + 100, 'a');
  auto sums = block_checksums(as_bytes(data));
  ASSERT_EQ(sums.size(), 6u);
  EXPECT_EQ(first_bad_block(as_bytes(data), sums), -1);
  data[3 * kBlockSize + 17] ^= 4;
  EXPECT_EQ(first_bad_block(as_bytes(data), sums), 3);
}

TEST(Config, UnknownKeyWrongTypeAndRangeAreErrors) {
  std::string listen = "default";
  std::uint32_t port = 1;
  auto read = [&](const char* text) -> Result<> {
    TRY(auto reader, ConfigReader::parse(text, "test.toml"));
    reader.text("listen", listen);
    reader.number("limits.port", port, 1u, 65535u);
    return reader.finish();
  };
  EXPECT_TRUE(read("listen = \"a\"\n[limits]\nport = 80"));
  EXPECT_EQ(listen, "a");
  EXPECT_EQ(port, 80u);
  auto unknown = read("lisen = \"a\"");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message().find("lisen"), std::string::npos);
  EXPECT_EQ(read("listen = 4").error().code(), Code::kConfig);
  EXPECT_EQ(read("[limits]\nport = 70000").error().code(), Code::kConfig);
  EXPECT_EQ(read("listen = ").error().code(), Code::kConfig);
}

TEST(Config, PrintedConfigReadsBack) {
  ConfigPrinter printer;
  printer.text("path", "/a \"b\"\\c", "a path");
  printer.list("disks", {"x", "y"}, "disks");
  std::string path;
  std::vector<std::string> disks;
  auto reader = ConfigReader::parse(printer.take(), "printed");
  ASSERT_TRUE(reader);
  reader->text("path", path);
  reader->list("disks", disks);
  ASSERT_TRUE(reader->finish());
  EXPECT_EQ(path, "/a \"b\"\\c");
  EXPECT_EQ(disks, (std::vector<std::string>{"x", "y"}));
}

TEST(Log, QuotesWhatWouldBreakALine) {
  EXPECT_EQ(log_quote("plain"), "plain");
  EXPECT_EQ(log_quote("two words"), "\"two words\"");
  EXPECT_EQ(log_quote("a\nb"), "\"a\\x0ab\"");
  EXPECT_EQ(log_quote(""), "\"\"");
}

TEST(Log, LevelsAreNamedAsInTheConfig) {
  const std::string path = ::testing::TempDir() + "cairn_log_levels";
  std::remove(path.c_str());
  ASSERT_TRUE(log_open(path));
  log_warn("event", "key={}", 1);
  log_error("event");
  ASSERT_TRUE(log_open("-"));
  std::ifstream file(path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_NE(text.find("Z warn event key=1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("Z error event\n"), std::string::npos) << text;
  std::remove(path.c_str());
}

TEST(Errors, NamesRoundTrip) {
  EXPECT_EQ(code_name(Code::kNoSpace), "no_space");
  EXPECT_EQ(code_from_number(101), Code::kNoSpace);
  EXPECT_EQ(code_from_number(65000), Code::kInternal);
  EXPECT_EQ(Error(Code::kIo, "b").with("a").to_string(), "io: a: b");
}

}  // namespace
}  // namespace cairn
