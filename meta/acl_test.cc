#include "meta/acl.h"

#include <gtest/gtest.h>

#include "store/base/bytes.h"

namespace cairn::meta {
namespace {

std::string list(std::initializer_list<AclEntry> entries, std::uint32_t version = 2) {
  std::string out;
  ByteWriter w(out);
  w.u32(version);
  for (const AclEntry& entry : entries) {
    w.u16(entry.tag);
    w.u16(entry.permissions);
    w.u32(entry.id);
  }
  return out;
}
using E = AclEntry;

TEST(Acl, DecodesWhatItEncodes) {
  const std::string full = list({{E::kUserObj, 7},
                                 {E::kUser, 6, 10},
                                 {E::kUser, 5, 11},
                                 {E::kGroupObj, 5},
                                 {E::kGroup, 4, 20},
                                 {E::kMask, 6},
                                 {E::kOther, 0}});
  auto acl = Acl::decode(full);
  ASSERT_TRUE(acl) << acl.error().message();
  EXPECT_EQ(acl->encode(), full);
  EXPECT_FALSE(acl->minimal());
  EXPECT_EQ(acl->mode(), 0760u) << "the group bits are the mask";
  auto none = Acl::decode(list({}));
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->empty());
}

TEST(Acl, RefusesWhatIsNone) {
  const auto code = [](const std::string& bytes) {
    auto acl = Acl::decode(bytes);
    return acl ? Code::kOk : acl.error().code();
  };
  EXPECT_EQ(code(""), Code::kInvalidArgument);
  EXPECT_EQ(code(list({}, 1)), Code::kInvalidArgument);
  const std::string good = list({{E::kUserObj, 7}, {E::kGroupObj, 5}, {E::kOther, 0}});
  EXPECT_EQ(code(good), Code::kOk);
  for (std::size_t cut = 1; cut < 8; ++cut)
    EXPECT_EQ(code(good.substr(0, good.size() - cut)), Code::kInvalidArgument) << cut;
  EXPECT_EQ(code(list({{E::kUserObj, 8}, {E::kGroupObj, 5}, {E::kOther, 0}})), Code::kInvalidArgument);
  EXPECT_EQ(code(list({{E::kGroupObj, 5}, {E::kUserObj, 7}, {E::kOther, 0}})), Code::kInvalidArgument);
  EXPECT_EQ(code(list({{E::kUserObj, 7}, {E::kGroupObj, 5}})), Code::kInvalidArgument);
  EXPECT_EQ(code(list({{E::kUserObj, 7}, {E::kUserObj, 7}, {E::kGroupObj, 5}, {E::kOther, 0}})),
            Code::kInvalidArgument);
  EXPECT_EQ(code(list({{E::kUserObj, 7}, {E::kUser, 7, 1}, {E::kGroupObj, 5}, {E::kOther, 0}})),
            Code::kInvalidArgument)
      << "no mask";
  EXPECT_EQ(code(list({{E::kUserObj, 7}, {E::kUser, 7}, {E::kGroupObj, 5}, {E::kMask, 7}, {E::kOther, 0}})),
            Code::kInvalidArgument)
      << "nobody is named";
  EXPECT_EQ(code(list({{E::kUserObj, 7}, {E::kGroupObj, 5}, {E::kOther, 0}, {64, 0}})),
            Code::kInvalidArgument);
}

TEST(Acl, ModeAndListFollowEachOther) {
  auto named =
      Acl::decode(
          list({{E::kUserObj, 7}, {E::kUser, 6, 10}, {E::kGroupObj, 5}, {E::kMask, 7}, {E::kOther, 4}}))
          .value();
  named.set_mode(0640);
  EXPECT_EQ(named.mode(), 0640u);
  EXPECT_EQ(named.entries()[2].permissions, 5) << "the group's own entry stays";
  EXPECT_EQ(named.entries()[3].permissions, 4) << "the mask does not";
  auto plain = Acl::decode(list({{E::kUserObj, 7}, {E::kGroupObj, 5}, {E::kOther, 4}})).value();
  EXPECT_TRUE(plain.minimal());
  plain.set_mode(0111);
  EXPECT_EQ(plain.mode(), 0111u);
}

TEST(Acl, RestrictedByTheModeAskedFor) {
  auto acl =
      Acl::decode(
          list({{E::kUserObj, 7}, {E::kUser, 7, 10}, {E::kGroupObj, 7}, {E::kMask, 7}, {E::kOther, 5}}))
          .value();
  EXPECT_EQ(acl.restrict(0666), 0664u);
  EXPECT_EQ(acl.mode(), 0664u);
  EXPECT_EQ(acl.entries()[1].permissions, 7) << "what is named is held by the mask alone";
}

}  // namespace
}  // namespace cairn::meta
