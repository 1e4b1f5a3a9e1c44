#include "store/rpc/frame.h"

#include <gtest/gtest.h>

#include "store/base/rng.h"
#include "store/rpc/frame_reader.h"
#include "store/rpc/outgoing.h"
#include "store/rpc/test_service.h"

namespace cairn::rpc::testing {
namespace {

std::string wire(FrameHeader header, OutMessage message) {
  header.payload_checksum = payload_checksum(message.payload);
  Outgoing out;
  out.add(header, message.builder().getSegmentsForOutput(), std::move(message.payload));
  std::string bytes;
  for (Bytes piece : out.pieces(0)) bytes.append(as_text(piece));
  EXPECT_EQ(bytes.size(), out.size());
  return bytes;
}

// Feeds `bytes` in steps of at most `step`. Stops at the first error.
Result<std::vector<Frame>> read_all(std::string_view bytes, std::size_t step) {
  FrameReader reader;
  std::vector<Frame> frames;
  for (;;) {
    for (;;) {
      TRY(auto frame, reader.next());
      if (!frame) break;
      frames.push_back(std::move(*frame));
    }
    if (bytes.empty()) return frames;
    MutableBytes space = reader.space();
    EXPECT_FALSE(space.empty());
    const std::size_t n = std::min({step, space.size(), bytes.size()});
    std::memcpy(space.data(), bytes.data(), n);
    reader.filled(n);
    bytes.remove_prefix(n);
  }
}

std::string random_bytes(SeededRng& rng, std::size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(rng.next());
  return out;
}

TEST(Frames, RoundTripInAnyPieces) {
  SeededRng rng(1);
  std::string stream;
  std::vector<std::string> texts, payloads;
  for (std::size_t size : {0, 1, 7, 100, 16'000, 16'384, 20'000, 100'000}) {
    for (std::size_t text : {0, 5, 3'000, 40'000}) {
      texts.push_back(random_bytes(rng, text));
      std::replace(texts.back().begin(), texts.back().end(), '\0', 'x');
      payloads.push_back(random_bytes(rng, size));
      FrameHeader header{.kind = FrameKind::kRequest, .method = 3, .id = rng.next(), .deadline_ms = 17};
      OutMessage out = message(texts.back());
      Buffer all = Buffer::copy(as_bytes(payloads.back()));
      out.payload.pieces = {all.slice(0, size / 3), all.slice(size / 3, size - size / 3)};
      stream += wire(header, std::move(out));
    }
  }
  for (std::size_t step : {1ul, 47ul, 49ul, 4096ul, stream.size()}) {
    auto frames = read_all(stream, step);
    ASSERT_TRUE(frames) << frames.error().to_string();
    ASSERT_EQ(frames->size(), texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      Frame& frame = (*frames)[i];
      EXPECT_EQ(frame.header.kind, FrameKind::kRequest);
      EXPECT_EQ(frame.header.method, 3);
      EXPECT_EQ(frame.header.deadline_ms, 17u);
      InMessage in(std::move(frame.body), std::move(frame.payload));
      EXPECT_TRUE(text_of(in) == texts[i]);
      EXPECT_TRUE(as_text(in.payload().bytes()) == payloads[i]);
    }
  }
}

// The layout on the wire: these bytes may never change under protocol version 1.
TEST(Frames, FixedBytes) {
  const std::string bytes =
      wire({.kind = FrameKind::kRequest, .method = 0x0102, .id = 0x1112131415161718}, {});
  ASSERT_EQ(bytes.size(), kHeaderSize);
  EXPECT_EQ(bytes.substr(0, 4), "CRN1");
  EXPECT_EQ(bytes.substr(4, 12), std::string("\x01\x00\x02\x01\x18\x17\x16\x15\x14\x13\x12\x11", 12));
  std::string hex;
  for (unsigned char c : bytes.substr(16)) hex += fmt::format("{:02x}", c);
  EXPECT_EQ(hex, "000052090000000000000000000000000735a2be0d8435440000000000000000");
}

TEST(Frames, BodyOfSeveralSegments) {
  OutMessage out;
  auto body = out.body<schema::Failure>();
  body.setMessage(std::string(5000, 'a'));  // the first segment has 256 words
  body.initDetail(9000);
  ASSERT_GT(out.builder().getSegmentsForOutput().size(), 1u);
  auto frames = read_all(wire({.kind = FrameKind::kReply}, std::move(out)), 1000);
  ASSERT_TRUE(frames);
  InMessage in(std::move(frames->at(0).body), {});
  EXPECT_EQ(text_of(in).size(), 5000u);
  EXPECT_EQ(in.body<schema::Failure>().getDetail().size(), 9000u);
}

TEST(Frames, EmptyBodyReadsAsDefaults) {
  auto frames = read_all(wire({.kind = FrameKind::kReply, .id = 1}, {}), 100);
  ASSERT_TRUE(frames);
  EXPECT_EQ(frames->at(0).header.body_words, 0u);
  InMessage in(std::move(frames->at(0).body), {});
  EXPECT_EQ(text_of(in), "");
}

TEST(Frames, EverySingleByteCorruptionIsFound) {
  SeededRng rng(2);
  const std::string good = wire({.kind = FrameKind::kRequest, .method = 1, .id = 5},
                                message("text", Buffer::take(random_bytes(rng, 200))));
  ASSERT_EQ(read_all(good, 1000)->size(), 1u);
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 256; ++bit) {
      if (bit == 0) continue;
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ bit);
      auto frames = read_all(bad, 1000);
      // Found at once, or the reader waits for bytes that a larger size announces; never a frame.
      ASSERT_TRUE(!frames || frames->empty()) << "byte " << at << " xor " << bit;
      if (frames) {
        ADD_FAILURE() << "a damaged size was believed: byte " << at << " xor " << bit;
      } else {
        EXPECT_EQ(frames.error().code(), Code::kProtocol);
      }
    }
  }
}

TEST(Frames, EveryTruncationWaits) {
  SeededRng rng(3);
  const std::string good = wire({.kind = FrameKind::kRequest, .method = 1, .id = 5},
                                message("text", Buffer::take(random_bytes(rng, 20'000))));
  for (std::size_t size = 0; size < good.size(); size += size < 200 ? 1 : 997) {
    auto frames = read_all(std::string_view(good).substr(0, size), 700);
    ASSERT_TRUE(frames);
    EXPECT_TRUE(frames->empty());
  }
}

TEST(Frames, SelfCheckedPayloadIsNotVerifiedHere) {
  OutMessage out = message("x", Buffer::take("payload"));
  out.payload.self_checked = true;
  std::string bytes = wire({.kind = FrameKind::kRequest}, std::move(out));
  bytes.back() ^= 1;
  auto frames = read_all(bytes, 1000);
  ASSERT_TRUE(frames);
  EXPECT_EQ(frames->size(), 1u);
}

TEST(Frames, LimitsAndKinds) {
  const auto decode = [](FrameHeader header, std::uint32_t body_words) {
    std::string bytes;
    append_frame(bytes, header, {});
    // append_frame() takes the size from the body: write the size that is tried, with a right check.
    std::memcpy(bytes.data() + 20, &body_words, 4);
    std::memset(bytes.data() + 18, 0, 2);
    for (unsigned check = 0; check < 65536; ++check) {
      std::memcpy(bytes.data() + 18, &check, 2);
      auto decoded = decode_header(as_bytes(bytes).data());
      if (decoded || decoded.error().message().find("does not match") == std::string::npos) return decoded;
    }
    return Result<FrameHeader>(fail(Code::kInternal, "no check fits"));
  };
  EXPECT_TRUE(decode({.kind = FrameKind::kRequest, .payload_bytes = kPayloadMax}, kBodyMax / 8));
  const auto text = [](const Result<FrameHeader>& r) { return r ? std::string("ok") : r.error().message(); };
  EXPECT_EQ(text(decode({.kind = FrameKind::kRequest}, kBodyMax / 8 + 1)),
            "frame body of 4194312 bytes exceeds the limit of 4194304");
  EXPECT_EQ(text(decode({.kind = FrameKind::kRequest}, 0xffffffff)),
            "frame body of 34359738360 bytes exceeds the limit of 4194304");
  EXPECT_EQ(text(decode({.kind = FrameKind::kRequest, .payload_bytes = kPayloadMax + 1}, 0)),
            "frame payload of 16777217 bytes exceeds the limit of 16777216");
  EXPECT_EQ(text(decode({.kind = static_cast<FrameKind>(9)}, 0)), "frame has unknown kind 9");
  EXPECT_EQ(text(decode({.kind = static_cast<FrameKind>(0)}, 0)), "frame has unknown kind 0");
  EXPECT_EQ(text(decode({.kind = FrameKind::kRequest, .flags = 2}, 0)), "frame has unknown flags 0x02");
  EXPECT_EQ(text(decode({.kind = FrameKind::kPing}, 1)), "frame of kind 7 carries a body or payload");
}

TEST(Frames, TooLargeToSend) {
  OutMessage body = message(std::string(kBodyMax, 'x'));
  EXPECT_EQ(check_sendable(body).error().code(), Code::kInvalidArgument);
  OutMessage payload = message("", Buffer::allocate(kPayloadMax + 1));
  EXPECT_EQ(check_sendable(payload).error().code(), Code::kInvalidArgument);
}

TEST(Messages, HostileBodiesThrowOrReadSafely) {
  SeededRng rng(4);
  const std::string good = wire({.kind = FrameKind::kRequest}, message("some text that is long enough"));
  int threw = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string body = good.substr(kHeaderSize);
    for (std::uint64_t changes = 1 + rng.below(4); changes > 0; --changes) {
      body[rng.below(body.size())] = static_cast<char>(rng.next());
    }
    try {
      InMessage in(Buffer::copy(as_bytes(body)), {});
      auto reader = in.body<schema::Failure>();
      (void)reader.getMessage().size();
      (void)reader.getDetail().size();
    } catch (const kj::Exception&) {
      ++threw;
    }
  }
  EXPECT_GT(threw, 1000);
}

TEST(Messages, LargeBuffersArePageAligned) {
  for (std::size_t size : {kPageSize, kPageSize + 1, std::size_t{1} << 20}) {
    Buffer buffer = Buffer::allocate(size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.bytes().data()) % kPageSize, 0u);
    EXPECT_EQ(buffer.size(), size);
  }
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(Buffer::allocate(24).bytes().data()) % 8, 0u);
}

}  // namespace
}  // namespace cairn::rpc::testing
