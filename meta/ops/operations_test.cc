#include "meta/ops/operations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "meta/acl.h"
#include "meta/keys.h"
#include "meta/ops/testing.h"
#include "store/base/bytes.h"

namespace cairn::meta {
namespace {

using testing::OpRunner;

class OperationsTest : public ::testing::Test {
 protected:
  template <class Operation>
  auto run(Operation operation) {
    return runner_.run(kMine, std::move(operation));
  }
  ops::MakeResult make(InodeId parent, const std::string& name, std::uint32_t mode, bool open = false) {
    ops::MakeArgs args;
    args.parent = parent;
    args.name = name;
    args.mode = mode;
    args.uid = 1;
    args.gid = 2;
    args.open = open;
    args.target = S_ISLNK(mode) ? "to" : "";
    return run([&](ops::Env& env) { return ops::make(env, args); }).value();
  }
  InodeRecord inode(InodeId id) {
    return run([&](ops::Env& env) { return ops::getattr(env, id); }).value().record;
  }
  Result<ops::InodeView> set_size(InodeId id, std::uint64_t size, bool shrinks = false) {
    ops::SetAttrArgs args;
    args.shrinks = shrinks;
    args.inode = id;
    args.valid = ops::SetAttrArgs::kSize;
    args.size = size;
    return run([&](ops::Env& env) { return ops::setattr(env, args); });
  }
  Code report(ops::ReportItem item, bool durable = false) {
    return run([&](ops::Env& env) { return ops::report(env, {item}, durable); }).value().at(0);
  }
  static constexpr SessionId kMine{100};
  static constexpr SessionId kOther{101};
  static constexpr std::uint64_t kChunk = 4096;
  OpRunner runner_;
};

TEST_F(OperationsTest, NamesAreChecked) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("a\0b", 3)}) {
    ops::MakeArgs args;
    args.parent = kRootInode;
    args.name = name;
    args.mode = S_IFREG;
    EXPECT_EQ(run([&](ops::Env& env) { return ops::make(env, args); }).error().code(),
              Code::kInvalidArgument);
  }
  ops::MakeArgs args;
  args.parent = kRootInode;
  args.mode = S_IFREG;
  args.name = std::string(256, 'x');
  EXPECT_EQ(run([&](ops::Env& env) { return ops::make(env, args); }).error().code(), Code::kNameTooLong);
  args.name = std::string(255, 'x');
  EXPECT_TRUE(run([&](ops::Env& env) { return ops::make(env, args); }));
}

TEST_F(OperationsTest, SetGroupIdDirectoriesPassOnTheirGroup) {
  const auto dir = make(kRootInode, "d", S_IFDIR | S_ISGID | 0775);
  ops::SetAttrArgs args;
  args.inode = dir.inode.id;
  args.valid = ops::SetAttrArgs::kGid;
  args.gid = 77;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::setattr(env, args); }));
  const auto file = make(dir.inode.id, "f", S_IFREG | 0644);
  EXPECT_EQ(file.inode.record.gid, 77u);
  EXPECT_FALSE(file.inode.record.mode & S_ISGID);
  const auto below = make(dir.inode.id, "e", S_IFDIR | 0755);
  EXPECT_EQ(below.inode.record.gid, 77u);
  EXPECT_TRUE(below.inode.record.mode & S_ISGID);
}

TEST_F(OperationsTest, ChangeOfOwnerDropsSetUserId) {
  const auto file = make(kRootInode, "f", S_IFREG | S_ISUID | S_ISGID | 0755);
  ops::SetAttrArgs args;
  args.inode = file.inode.id;
  args.valid = ops::SetAttrArgs::kUid;
  args.uid = 5;
  auto changed = run([&](ops::Env& env) { return ops::setattr(env, args); });
  EXPECT_EQ(changed->record.mode & 07777, 0755u);
}

TEST_F(OperationsTest, LookupFindsParentAndMissingNames) {
  const auto dir = make(kRootInode, "d", S_IFDIR | 0755);
  const auto lookup = [&](InodeId parent, const std::string& name) {
    return run([&](ops::Env& env) { return ops::lookup(env, {parent, name}); });
  };
  EXPECT_EQ(lookup(kRootInode, "d")->inode->id, dir.inode.id);
  EXPECT_EQ(lookup(dir.inode.id, "..")->inode->id, kRootInode);
  EXPECT_EQ(lookup(kRootInode, "..")->inode->id, kRootInode);
  EXPECT_FALSE(lookup(kRootInode, "x")->inode.has_value());
  EXPECT_EQ(lookup(InodeId(999), "x").error().code(), Code::kNotFound);
  const auto file = make(kRootInode, "f", S_IFREG | 0644);
  EXPECT_EQ(lookup(file.inode.id, "x").error().code(), Code::kNotDirectory);
}

TEST_F(OperationsTest, UnlinkedWhileOpenStaysUntilTheLastClose) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  ASSERT_TRUE(runner_.run(kOther, [&](ops::Env& env) {
    return ops::open(env, {file.inode.id, false, false});
  }));
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, {kRootInode, "f", false}); }));
  EXPECT_EQ(inode(file.inode.id).nlink, 0u);
  EXPECT_TRUE(runner_.cluster.purges().empty());
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::close_opens(env, file.inode.id, 1); }));
  EXPECT_EQ(inode(file.inode.id).nlink, 0u);
  ASSERT_TRUE(runner_.run(kOther, [&](ops::Env& env) { return ops::close_opens(env, file.inode.id, 1); }));
  EXPECT_FALSE(run([&](ops::Env& env) { return ops::getattr(env, file.inode.id); }));
  ASSERT_EQ(runner_.cluster.purges().size(), 1u);
  EXPECT_EQ(runner_.cluster.purges()[0].chunks, 1u);  // the bound that came with the open
}

TEST_F(OperationsTest, ReportOfGrowthLeavesHolesForWhatWasNotWritten) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ASSERT_EQ(run([&](ops::Env& env) {
              return ops::extend_bound(env, {id, *file.exclusive, 10});
            })->bound,
            10u);
  ops::ReportItem item{id, *file.exclusive, true, 8 * kChunk - 1, {{2, 3}, {5, 6}}, 2 * kChunk};
  EXPECT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(id).holes, (Ranges{{0, 2}, {3, 5}, {6, 8}}));
  EXPECT_EQ(inode(id).synced_size, 0u);
  item.written = {{0, 8}};
  EXPECT_EQ(report(item, true), Code::kOk);
  EXPECT_TRUE(inode(id).holes.empty());
  EXPECT_EQ(inode(id).synced_size, 8 * kChunk - 1);
  // A report that was overtaken by a later one does not shrink the file.
  item.size = kChunk;
  EXPECT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(id).size, 8 * kChunk - 1);
  // Beyond the bound.
  item.size = 11 * kChunk;
  EXPECT_EQ(report(item), Code::kRange);
  item.size = kChunk;
  item.written = {{10, 11}};
  EXPECT_EQ(report(item), Code::kRange);
}

TEST_F(OperationsTest, ReportNeedsTheLease) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  ops::ReportItem item{file.inode.id, LeaseGeneration(file.exclusive->value() + 1), true, 5, {{0, 1}}, 5};
  EXPECT_EQ(report(item), Code::kLeaseLost);
  item.generation = *file.exclusive;
  item.keep = ops::Keep::kShared;
  EXPECT_EQ(report(item), Code::kOk);
  EXPECT_EQ(report(item), Code::kLeaseLost);  // given back with the first
  item.inode = InodeId(12345);
  EXPECT_EQ(report(item), Code::kNotFound);
  auto bound = run([&](ops::Env& env) {
    return ops::extend_bound(env, {file.inode.id, *file.exclusive, 10});
  });
  EXPECT_EQ(bound.error().code(), Code::kLeaseLost);
}

// Found by the coherence checker: a host's own stat told another ctime than that of all others.
TEST_F(OperationsTest, AReportTellsTheTimeOfTheHoldersLastChange) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ops::ReportItem item{id, *file.exclusive, true, 5, {{0, 1}}, 5};
  item.mtime = item.ctime = 1'000'000;
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(id).ctime, 1'000'000);
  item.ctime = 999'999;  // another clock
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(id).ctime, 1'000'000) << "it never goes back";
  ops::SetAttrArgs chmod;
  chmod.inode = id;
  chmod.valid = ops::SetAttrArgs::kMode;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::setattr(env, chmod); }));
  EXPECT_EQ(inode(id).ctime, 1'000'000) << "nor with the server's";
}

// Found by the coherence checker: a file that was unlinked here was open on another host, which read zeros.
TEST_F(OperationsTest, UnsavedBytesAreNotNeededOnlyIfTheInodeGoes) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ops::ReportItem item{id, *file.exclusive};
  item.closed = 1;
  item.if_last = true;
  EXPECT_EQ(report(item), Code::kExists) << "it has a name";
  ASSERT_TRUE(runner_.run(kOther, [&](ops::Env& env) { return ops::open(env, {id, false, false}); }));
  ops::RemoveArgs remove;
  remove.parent = kRootInode;
  remove.name = "f";
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, remove); }));
  EXPECT_EQ(report(item), Code::kExists) << "it is open elsewhere";
  EXPECT_EQ(inode(id).nlink, 0u);
  ops::ReportItem other{id};
  other.closed = 1;
  ASSERT_EQ(runner_.run(kOther, [&](ops::Env& env) { return ops::report(env, {other}, false); })->at(0),
            Code::kOk);
  EXPECT_EQ(report(item), Code::kOk) << "what was refused changed nothing";
  EXPECT_EQ(report(item), Code::kNotFound);
}

TEST_F(OperationsTest, ReportSetsPermissionBitsOnlyUnderTheLease) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  ops::ReportItem item;
  item.inode = file.inode.id;
  item.generation = LeaseGeneration(file.exclusive->value() + 1);
  item.mode = S_IFDIR | 04755;
  EXPECT_EQ(report(item), Code::kLeaseLost);
  EXPECT_EQ(inode(file.inode.id).mode, S_IFREG | 0644u);
  item.generation = *file.exclusive;
  EXPECT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(file.inode.id).mode, S_IFREG | 04755u);
}

TEST_F(OperationsTest, ShrinkSetsTrimAndForbidsGrowthUntilItIsDone) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::extend_bound(env, {id, *file.exclusive, 10}); }));
  ops::ReportItem item{id, *file.exclusive, true, 8 * kChunk, {{0, 8}}, 8 * kChunk};
  ASSERT_EQ(report(item, true), Code::kOk);
  auto shrunk = set_size(id, 3 * kChunk + 10);
  EXPECT_EQ(shrunk->record.trim, (Range{3 * kChunk + 10, 10 * kChunk}));
  EXPECT_EQ(shrunk->record.synced_size, 3 * kChunk + 10);
  EXPECT_EQ(shrunk->record.layers, file.inode.record.layers);
  EXPECT_EQ(set_size(id, 5 * kChunk).error().code(), Code::kLeaseLost);
  item.size = 5 * kChunk;
  item.written = {{4, 5}};
  EXPECT_EQ(report(item), Code::kInvalidArgument);
  item.trim_done = true;
  EXPECT_EQ(report(item), Code::kOk);
  EXPECT_TRUE(inode(id).trim.empty());
  EXPECT_TRUE(inode(id).holes.empty());  // chunk 3 was only cut, chunk 4 written
  EXPECT_EQ(set_size(id, 9 * kChunk)->record.holes, (Ranges{{5, 9}}));
}

// The holder stored bytes behind the new size and had not reported them yet: they would come back when the
// file grows.
TEST_F(OperationsTest, WhatShrinksOnlyForItsHolderIsTrimmedToo) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::extend_bound(env, {id, *file.exclusive, 10}); }));
  ops::ReportItem item{id, *file.exclusive, true, 2 * kChunk, {{0, 2}}, 2 * kChunk};
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_TRUE(set_size(id, 2 * kChunk)->record.trim.empty());
  EXPECT_EQ(set_size(id, 2 * kChunk, true)->record.trim, (Range{2 * kChunk, 10 * kChunk}));
  item.written = {};
  item.trim_done = true;
  ASSERT_EQ(report(item), Code::kOk);
  auto longer = set_size(id, 4 * kChunk + 5, true);
  EXPECT_EQ(longer->record.trim, (Range{4 * kChunk + 5, 10 * kChunk}));
  EXPECT_EQ(longer->record.holes, (Ranges{{2, 5}}));
  EXPECT_EQ(longer->record.size, 4 * kChunk + 5);
  EXPECT_EQ(set_size(id, 5 * kChunk, true).error().code(), Code::kLeaseLost);
}

TEST_F(OperationsTest, PunchedChunksAreHolesAgain) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::extend_bound(env, {id, *file.exclusive, 10}); }));
  ops::ReportItem item{id, *file.exclusive, true, 8 * kChunk, {{0, 8}}, 8 * kChunk};
  ASSERT_EQ(report(item), Code::kOk);
  item.written = {{6, 7}};
  item.punched = {{2, 4}, {7, 100}};
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(id).holes, (Ranges{{2, 4}, {7, 8}})) << "below the end of the file";
  item.written = {{3, 4}};
  item.punched = {{5, 4}};
  EXPECT_EQ(report(item), Code::kInvalidArgument);
  item.punched = {};
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(inode(id).holes, (Ranges{{2, 3}, {7, 8}}));
  // Too many holes: what is emptied stays a chunk, and nobody is refused.
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::extend_bound(env, {id, *file.exclusive, 40'000}); }));
  item.size = 40'000 * kChunk;
  item.written = {{0, 40'000}};
  ASSERT_EQ(report(item), Code::kOk);
  item.written = {};
  for (std::uint64_t i = 1; i < 40'000; i += 2) item.punched.push_back({i, i + 1});
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_TRUE(inode(id).holes.empty());
}

TEST_F(OperationsTest, TruncationToZeroTakesAFreshDataId) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const InodeId id = file.inode.id;
  ops::ReportItem item{id, *file.exclusive, true, 100, {{0, 1}}, 4096};
  ASSERT_EQ(report(item), Code::kOk);
  auto opened = run([&](ops::Env& env) { return ops::open(env, {id, true, true}); });
  EXPECT_NE(opened->inode.record.layers[0].data, file.inode.record.layers[0].data);
  EXPECT_EQ(opened->inode.record.size, 0u);
  EXPECT_EQ(opened->inode.record.bytes, 0u);
  EXPECT_EQ(*opened->exclusive, *file.exclusive);  // it was held already
  EXPECT_EQ(runner_.cluster.purges().at(0).data, file.inode.record.layers[0].data);
}

TEST_F(OperationsTest, BoundNeedsSpace) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  const auto extend = [&](std::uint64_t bound, std::uint64_t needed = 0) {
    return run([&](ops::Env& env) {
      return ops::extend_bound(env, {file.inode.id, *file.exclusive, bound, 0, needed});
    });
  };
  runner_.cluster.set_space({1 << 20, 2 * kChunk, false});
  EXPECT_EQ(extend(100)->bound, 3u);  // asked for much, gets what there is
  // Found by a copy of a sparse file: a chunk far behind the others needs no more room than they.
  EXPECT_EQ(extend(2000, 1001)->bound, 1001u);
  EXPECT_EQ(extend(2000, 1002)->bound, 1003u);
  runner_.cluster.set_space({1 << 20, 10, false});
  EXPECT_EQ(extend(2000, 1500).error().code(), Code::kNoSpace);
  EXPECT_EQ(extend(2)->bound, 1003u);
}

// Just after a start, room that nobody has told of yet is not room that is missing: fallocate failed, and df
// showed a full file system, whenever the metadata server was restarted.
TEST_F(OperationsTest, SpaceThatIsNotKnownYetIsNotTakenForFull) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  runner_.cluster.set_space({1 << 20, 0, false, false});
  EXPECT_EQ(run([&](ops::Env& env) { return ops::statfs(env, {}); }).error().code(), Code::kStarting);
  const auto extended = run([&](ops::Env& env) {
    return ops::extend_bound(env, {file.inode.id, *file.exclusive, 100});
  });
  EXPECT_EQ(extended->bound, 100u);
}

TEST_F(OperationsTest, ExtendedAttributes) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644);
  const InodeId id = file.inode.id;
  const auto set = [&](const std::string& name, const std::string& value, std::uint32_t flags) {
    auto result = run([&](ops::Env& env) { return ops::setxattr(env, {id, name, value, flags}); });
    return result ? Code::kOk : result.error().code();
  };
  EXPECT_EQ(set("user.a", "1", ops::SetXattrArgs::kReplace), Code::kNoAttribute);
  EXPECT_EQ(set("user.a", "1", ops::SetXattrArgs::kCreate), Code::kOk);
  EXPECT_EQ(set("user.a", "2", ops::SetXattrArgs::kCreate), Code::kExists);
  EXPECT_EQ(set("user.a", "3", 0), Code::kOk);
  EXPECT_EQ(set("user.b", std::string(ops::kXattrValueMax + 1, 'x'), 0), Code::kRange);
  EXPECT_EQ(set("user.b", std::string(ops::kXattrValueMax, 'x'), 0), Code::kOk);
  EXPECT_EQ(set("user.c", std::string(ops::kXattrValueMax, 'x'), 0), Code::kNoSpace);
  EXPECT_EQ(set("", "x", 0), Code::kInvalidArgument);
  EXPECT_EQ(run([&](ops::Env& env) { return ops::getxattr(env, id, "user.a"); }).value(), "3");
  EXPECT_EQ(run([&](ops::Env& env) { return ops::listxattr(env, id); }).value(),
            (std::vector<std::string>{"user.a", "user.b"}));
  EXPECT_TRUE(run([&](ops::Env& env) { return ops::removexattr(env, id, "user.a"); }));
  EXPECT_EQ(run([&](ops::Env& env) { return ops::removexattr(env, id, "user.a"); }).error().code(),
            Code::kNoAttribute);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, {kRootInode, "f", false}); }));
  EXPECT_EQ(runner_.kv.get(keys::xattr(id, "user.b")).value(), std::nullopt);
}

// An access control list as Linux passes it: owner, one user, group, mask, others.
std::string acl_bytes(std::array<std::uint16_t, 5> permissions) {
  std::string out;
  ByteWriter w(out);
  w.u32(2);
  const std::uint16_t tags[] = {1, 2, 4, 16, 32};
  for (std::size_t i = 0; i < 5; ++i) {
    w.u16(tags[i]);
    w.u16(permissions[i]);
    w.u32(tags[i] == 2 ? 1000 : UINT32_MAX);
  }
  return out;
}

TEST_F(OperationsTest, AccessControlListsAndModesFollowEachOther) {
  const std::string access(kAccessAcl), defaults(kDefaultAcl);
  const auto file = make(kRootInode, "f", S_IFREG | S_ISGID | 0600, true);
  const InodeId id = file.inode.id;
  const auto set = [&](InodeId on, const std::string& name, const std::string& value,
                       std::uint32_t flags = 0) {
    auto done = run([&](ops::Env& env) { return ops::setxattr(env, {on, name, value, flags}); });
    return done ? Code::kOk : done.error().code();
  };
  const auto get = [&] { return run([&](ops::Env& env) { return ops::getxattr(env, id, access); }); };
  EXPECT_EQ(set(id, access, "nonsense"), Code::kInvalidArgument);
  EXPECT_EQ(set(id, defaults, acl_bytes({7, 7, 7, 7, 7})), Code::kPermission);
  ASSERT_EQ(set(id, access, acl_bytes({6, 7, 4, 5, 1})), Code::kOk);
  EXPECT_EQ(inode(id).mode, S_IFREG | S_ISGID | 0651u);
  ASSERT_EQ(set(id, access, acl_bytes({6, 7, 4, 5, 1}), ops::SetXattrArgs::kClearSetgid), Code::kOk);
  EXPECT_EQ(inode(id).mode, S_IFREG | 0651u);
  ops::SetAttrArgs chmod;
  chmod.inode = id;
  chmod.valid = ops::SetAttrArgs::kMode;
  chmod.mode = 0720;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::setattr(env, chmod); }));
  EXPECT_EQ(get().value(), acl_bytes({7, 7, 4, 2, 0}));
  ops::ReportItem item{id, *file.exclusive};
  item.mode = 0604;
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(get().value(), acl_bytes({6, 7, 4, 0, 4}));
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::removexattr(env, id, access); }));
  EXPECT_EQ(inode(id).mode, S_IFREG | 0604u);
  EXPECT_EQ(get().error().code(), Code::kNoAttribute);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::removexattr(env, id, access); })) << "nor is it an error";
}

TEST_F(OperationsTest, DefaultListsCountInsteadOfTheUmask) {
  const auto dir = make(kRootInode, "d", S_IFDIR | 0755).inode.id;
  const std::string list = acl_bytes({7, 7, 5, 7, 0});
  ASSERT_TRUE(run([&](ops::Env& env) {
    return ops::setxattr(env, {dir, std::string(kDefaultAcl), list, 0});
  }));
  const auto made = [&](const std::string& name, std::uint32_t mode, std::uint32_t full) {
    ops::MakeArgs args;
    args.parent = dir;
    args.name = name;
    args.mode = mode;
    args.full_mode = full;
    args.target = S_ISLNK(mode) ? "to" : "";
    return run([&](ops::Env& env) { return ops::make(env, args); }).value().inode;
  };
  const auto names = [&](InodeId id) {
    return run([&](ops::Env& env) { return ops::listxattr(env, id); }).value();
  };
  const auto file = made("f", S_IFREG | 0600, 0666);
  EXPECT_EQ(file.record.mode, S_IFREG | 0660u);
  EXPECT_EQ(inode(file.id).mode, S_IFREG | 0660u);
  EXPECT_EQ(names(file.id), (std::vector<std::string>{std::string(kAccessAcl)}));
  const auto sub = made("sub", S_IFDIR | 0700, 0777);
  EXPECT_EQ(sub.record.mode, S_IFDIR | 0770u);
  EXPECT_EQ(names(sub.id), (std::vector<std::string>{std::string(kAccessAcl), std::string(kDefaultAcl)}));
  const auto link = made("l", S_IFLNK | 0777, 0777);
  EXPECT_EQ(link.record.mode, S_IFLNK | 0777u);
  EXPECT_TRUE(names(link.id).empty());
  const auto old_program = made("old", S_IFREG | 0600, 0);
  EXPECT_EQ(old_program.record.mode, S_IFREG | 0600u);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::removexattr(env, dir, std::string(kDefaultAcl)); }));
  EXPECT_EQ(made("g", S_IFREG | 0600, 0666).record.mode, S_IFREG | 0600u);
}

TEST_F(OperationsTest, RenameLeavesAWhiteout) {
  const auto dir = make(kRootInode, "d", S_IFDIR | 0755).inode.id;
  const auto file = make(kRootInode, "f", S_IFREG | 0644).inode.id;
  const auto lookup = [&](InodeId parent, const std::string& name) {
    return run([&](ops::Env& env) { return ops::lookup(env, {parent, name}); }).value().inode;
  };
  ops::RenameArgs args{kRootInode, "f", dir, "g", ops::RenameArgs::kWhiteout, 5, 6};
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::rename(env, args); }));
  EXPECT_EQ(lookup(dir, "g")->id, file);
  const auto left = lookup(kRootInode, "f");
  ASSERT_TRUE(left);
  EXPECT_EQ(left->record.mode, static_cast<std::uint32_t>(S_IFCHR));
  EXPECT_EQ(left->record.rdev, 0u);
  EXPECT_EQ(left->record.uid, 5u);
  EXPECT_EQ(left->record.gid, 6u);
  EXPECT_EQ(left->record.nlink, 1u);
  const auto files = run([&](ops::Env& env) { return ops::statfs(env, {}); }).value().files;
  args.flags |= ops::RenameArgs::kExchange;
  EXPECT_EQ(run([&](ops::Env& env) { return ops::rename(env, args); }).error().code(),
            Code::kInvalidArgument);
  ops::RemoveArgs removal{kRootInode, "f", false};
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, removal); }));
  EXPECT_EQ(run([&](ops::Env& env) { return ops::statfs(env, {}); }).value().files, files - 1);
}

// A reader's report changes nothing but the time of access, and never moves that back.
TEST_F(OperationsTest, AccessTimesOfReaders) {
  const InodeId id = make(kRootInode, "f", S_IFREG | 0644).inode.id;
  const InodeRecord before = inode(id);
  ops::ReportItem item{id, LeaseGeneration{}};
  item.atime = before.atime + 50;
  ASSERT_EQ(report(item), Code::kOk);
  item.atime = before.atime + 20;
  ASSERT_EQ(report(item), Code::kOk);
  InodeRecord after = inode(id);
  EXPECT_EQ(after.atime, before.atime + 50);
  after.atime = before.atime;
  EXPECT_EQ(after, before);
}

TEST_F(OperationsTest, CookiesStayWhileADirectoryChanges) {
  for (const char* name : {"a", "b", "c", "d"}) make(kRootInode, name, S_IFREG | 0644);
  auto first = run([&](ops::Env& env) { return ops::readdir(env, {kRootInode, 0, 2, false}); });
  ASSERT_EQ(first->entries.size(), 2u);
  EXPECT_FALSE(first->end);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, {kRootInode, "b", false}); }));
  make(kRootInode, "e", S_IFREG | 0644);
  auto rest = run([&](ops::Env& env) {
    return ops::readdir(env, {kRootInode, first->entries.back().cookie, 10, true});
  });
  std::vector<std::string> names;
  for (auto& entry : rest->entries) names.push_back(entry.name);
  EXPECT_EQ(names, (std::vector<std::string>{"c", "d", "e"}));
  EXPECT_TRUE(rest->end);
}

TEST_F(OperationsTest, Symlinks) {
  const auto link = make(kRootInode, "l", S_IFLNK | 0777);
  EXPECT_EQ(link.inode.record.size, 2u);
  EXPECT_EQ(run([&](ops::Env& env) { return ops::readlink(env, link.inode.id); }).value(), "to");
  EXPECT_EQ(run([&](ops::Env& env) { return ops::readlink(env, kRootInode); }).error().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(run([&](ops::Env& env) {
              return ops::open(env, {link.inode.id, true, false});
            })
                .error()
                .code(),
            Code::kInvalidArgument);
}

// --- objects ---

class ObjectsTest : public OperationsTest {
 protected:
  DataId create(SessionId session, const std::string& id, std::uint64_t size = 0) {
    return runner_.run(session,
                       [&](ops::Env& env) {
                         return ops::create_object(env, {{"", id, 0}, size});
                       })
        ->data;
  }
  Result<ops::SealResult> seal(SessionId session, const std::string& id, DataId data, std::uint64_t digest) {
    ops::SealArgs args{{"", id, 0}, data, 5000, {digest, digest}, 2, "lineage"};
    return runner_.run(session, [&](ops::Env& env) { return ops::seal(env, args); });
  }
  Code get(const std::string& id) {
    auto result = run([&](ops::Env& env) { return ops::get_object(env, {"", id, 0}); });
    return result ? Code::kOk : result.error().code();
  }
  std::uint64_t sealed_count() {
    return Counters::decode(*runner_.kv.get(keys::system("counters")).value())->objects;
  }
};

TEST_F(ObjectsTest, FirstSealWins) {
  EXPECT_EQ(get("o"), Code::kNotFound);
  const DataId first = create(kMine, "o");
  const DataId second = create(kOther, "o");
  const DataId third = create(kOther, "o");
  EXPECT_EQ(get("o"), Code::kNotSealed);
  EXPECT_EQ(seal(kOther, "o", first, 1).error().code(), Code::kNotFound);  // not its own
  auto won = seal(kMine, "o", first, 1);
  ASSERT_TRUE(won);
  EXPECT_FALSE(won->existed);
  auto same = seal(kOther, "o", second, 1);
  ASSERT_TRUE(same);
  EXPECT_TRUE(same->existed);
  EXPECT_EQ(same->object.record.data, first);
  EXPECT_EQ(runner_.cluster.purges().at(0).data, second);
  auto other = seal(kOther, "o", third, 2);
  EXPECT_EQ(other.error().code(), Code::kConflict);
  EXPECT_NE(other.error().message().find(to_string(Digest{1, 1})), std::string::npos);
  EXPECT_NE(other.error().message().find(to_string(Digest{2, 2})), std::string::npos);
  ASSERT_TRUE(runner_.run(kOther, [&](ops::Env& env) { return ops::abort_object(env, third); }));
  EXPECT_EQ(runner_.cluster.purges().at(1).data, third);
  EXPECT_EQ(get("o"), Code::kOk);
  EXPECT_EQ(sealed_count(), 1u);
}

TEST_F(ObjectsTest, SizeIsBounded) {
  for (const std::uint64_t size : {kSizeMax + 1, UINT64_MAX - 4095, UINT64_MAX}) {
    const ops::CreateObjectArgs args{{"", "huge", 0}, size};
    EXPECT_EQ(run([&](ops::Env& env) { return ops::create_object(env, args); }).error().code(), Code::kRange);
  }
  EXPECT_EQ(get("huge"), Code::kNotFound);
  // No purge order names fewer chunks than may have been written.
  const DataId data = create(kMine, "o", kSizeMax);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::abort_object(env, data); }));
  EXPECT_EQ(runner_.cluster.purges().at(0).chunks, UINT32_MAX);
}

TEST_F(ObjectsTest, AbortedObjectDisappears) {
  const DataId data = create(kMine, "o", 9000);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::abort_object(env, data); }));
  EXPECT_EQ(get("o"), Code::kNotFound);
  EXPECT_EQ(runner_.cluster.purges().at(0).chunks, 3u);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::abort_object(env, data); }));
  EXPECT_EQ(runner_.cluster.purges().size(), 1u);
}

TEST_F(ObjectsTest, DeletedIsKnownForATimeAndMayComeBack) {
  ASSERT_TRUE(seal(kMine, "o", create(kMine, "o"), 1));
  const auto remove = [&] {
    return run([&](ops::Env& env) { return ops::delete_object(env, {"", "o", 0}); });
  };
  ASSERT_TRUE(remove());
  EXPECT_EQ(get("o"), Code::kDeleted);
  EXPECT_EQ(remove().error().code(), Code::kDeleted);
  EXPECT_EQ(sealed_count(), 0u);
  ASSERT_TRUE(seal(kMine, "o", create(kMine, "o"), 2));
  EXPECT_EQ(get("o"), Code::kOk);
  ASSERT_TRUE(remove());
  EXPECT_EQ(run([&](ops::Env& env) { return ops::forget_deleted(env, 0); }), false);
  EXPECT_EQ(get("o"), Code::kDeleted);
  EXPECT_EQ(run([&](ops::Env& env) { return ops::forget_deleted(env, env.txn.wall_ns()); }), false);
  EXPECT_EQ(get("o"), Code::kNotFound);
}

TEST_F(ObjectsTest, SealNeedsAReceiptForEachChunk) {
  const DataId data = create(kMine, "o");
  ops::SealArgs args{{"", "o", 0}, data, 5000, {1, 1}, 1, ""};
  EXPECT_EQ(run([&](ops::Env& env) { return ops::seal(env, args); }).error().code(), Code::kInvalidArgument);
}

TEST_F(ObjectsTest, ListsInPages) {
  for (const char* id : {"a", "b1", "b2", "b3", "c"}) ASSERT_TRUE(seal(kMine, id, create(kMine, id), 1));
  create(kMine, "b4");
  std::vector<std::string> seen;
  std::string after;
  for (int pages = 0; pages < 10; ++pages) {
    auto page = run([&](ops::Env& env) { return ops::list_objects(env, {"", "b", after, 2}); });
    ASSERT_TRUE(page);
    for (auto& object : page->objects) seen.push_back(object.key.id);
    if (page->done) break;
    after = seen.back();
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"b1", "b2", "b3"}));
}

// --- quotas ---

class QuotaTest : public OperationsTest {
 protected:
  void limit(InodeId directory, std::uint64_t bytes, std::uint64_t inodes) {
    ASSERT_TRUE(run([&](ops::Env& env) { return ops::set_quota(env, {directory, 3, bytes, inodes}); }));
  }
  DirectoryRecord totals(InodeId directory) {
    return run([&](ops::Env& env) {
             return ops::get_quotas(env, {directory, {}, 1});
           })
        .value()
        .items.at(0)
        .record;
  }
  Code try_make(InodeId parent, const std::string& name, std::uint32_t mode = S_IFREG | 0644) {
    ops::MakeArgs args;
    args.parent = parent;
    args.name = name;
    args.mode = mode;
    auto made = run([&](ops::Env& env) { return ops::make(env, args); });
    return made ? Code::kOk : made.error().code();
  }
  Code rename(InodeId from, const std::string& name, InodeId to, const std::string& new_name,
              std::uint32_t flags = 0) {
    auto done = run([&](ops::Env& env) { return ops::rename(env, {from, name, to, new_name, flags}); });
    return done ? Code::kOk : done.error().code();
  }
  Result<ops::ExtendBoundResult> allow(const ops::MakeResult& file, std::uint64_t bytes) {
    return run([&](ops::Env& env) {
      return ops::extend_bound(env, {file.inode.id, *file.exclusive, 100, bytes});
    });
  }
  Result<ops::ShareResult> share(const ops::MakeResult& from, const ops::MakeResult& to, std::uint64_t first,
                                 std::uint64_t at, std::uint64_t count) {
    const ops::ShareArgs args{from.inode.id, *from.exclusive, to.inode.id, *to.exclusive, first, at, count};
    return run([&](ops::Env& env) { return ops::share_chunks(env, args); });
  }
  void store_chunks(const ops::MakeResult& file, std::uint64_t chunks) {
    ASSERT_TRUE(allow(file, 0));
    const std::uint64_t bytes = chunks * kChunk;
    ASSERT_EQ(report({file.inode.id, *file.exclusive, true, bytes, {{0, chunks}}, bytes}), Code::kOk);
  }
  // Written and stored: `bytes` bytes, and the lease is given back.
  void store(const ops::MakeResult& file, std::uint64_t bytes, ops::Keep keep = ops::Keep::kNone) {
    ASSERT_TRUE(allow(file, 0));
    ops::ReportItem item{file.inode.id, *file.exclusive, true, bytes, {}, bytes};
    item.keep = keep;
    ASSERT_EQ(report(item), Code::kOk);
  }
};

TEST_F(QuotaTest, LimitsTheInodesOfASubtree) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const InodeId inner = make(top, "inner", S_IFDIR | 0755).inode.id;
  make(kRootInode, "outside", S_IFREG | 0644);
  limit(top, 0, 3);
  EXPECT_EQ(try_make(inner, "a"), Code::kOk);
  EXPECT_EQ(try_make(inner, "b", S_IFDIR | 0755), Code::kOk);
  EXPECT_EQ(try_make(inner, "c"), Code::kQuotaExceeded);
  EXPECT_EQ(try_make(top, "c", S_IFIFO | 0644), Code::kQuotaExceeded);
  EXPECT_EQ(rename(kRootInode, "outside", inner, "c"), Code::kQuotaExceeded);
  EXPECT_EQ(rename(inner, "a", top, "a"), Code::kOk) << "within the subtree nothing is added";
  EXPECT_EQ(rename(kRootInode, "outside", top, "a"), Code::kOk) << "what is replaced makes room";
  EXPECT_EQ(totals(top).inodes, 3);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, {inner, "b", true}); }));
  EXPECT_EQ(try_make(inner, "c"), Code::kOk);
  // A limit below what is there: it can be made smaller, moved about and out, not larger.
  limit(top, 0, 1);
  EXPECT_EQ(rename(inner, "c", top, "c"), Code::kOk);
  EXPECT_EQ(try_make(top, "d"), Code::kQuotaExceeded);
  EXPECT_EQ(rename(top, "c", kRootInode, "c"), Code::kOk);
  limit(top, 0, 0);
  EXPECT_EQ(try_make(top, "d"), Code::kOk);
}

TEST_F(QuotaTest, EveryLimitAboveCountsAndExchangeIsOneChange) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const InodeId inner = make(top, "inner", S_IFDIR | 0755).inode.id;
  limit(top, 0, 2);
  limit(inner, 0, 9);
  EXPECT_EQ(try_make(inner, "a"), Code::kOk);
  EXPECT_EQ(try_make(inner, "b"), Code::kQuotaExceeded);
  make(kRootInode, "file", S_IFREG | 0644);
  EXPECT_EQ(rename(kRootInode, "file", inner, "a", 2), Code::kOk) << "one for one";
  const InodeId big = make(kRootInode, "big", S_IFDIR | 0755).inode.id;
  make(big, "x", S_IFREG | 0644);
  EXPECT_EQ(rename(kRootInode, "big", inner, "a", 2), Code::kQuotaExceeded) << "two for one";
  EXPECT_EQ(totals(top).inodes, 2);
}

TEST_F(QuotaTest, WritersTogetherStayBelowTheLimit) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  limit(top, 100'000, 0);
  const auto a = make(top, "a", S_IFREG | 0644, true), b = make(top, "b", S_IFREG | 0644, true);
  EXPECT_EQ(allow(a, 60'000)->allowed.bytes_max, 60'000u) << "nothing ahead of the first bytes";
  EXPECT_EQ(totals(top).bytes, 60'000) << "charged before it is stored";
  EXPECT_EQ(allow(b, 40'001).error().code(), Code::kQuotaExceeded);
  EXPECT_TRUE(allow(b, 30'000)->allowed.limited);
  // Ahead: a part of what is left at most.
  EXPECT_EQ(allow(a, 61'000)->allowed.bytes_max, 61'000u + 9'000 / 16);
  store(a, 50'000);
  EXPECT_EQ(totals(top).bytes, 80'000) << "what is not needed is free again";
  // A holder that keeps its lease gives back what it says.
  ops::ReportItem item{b.inode.id, *b.exclusive, true, 10'000, {}, 10'000};
  item.bytes_max = 15'000;
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(totals(top).bytes, 65'000);
  item.bytes_max.reset();
  item.size = item.bytes = 12'000;
  ASSERT_EQ(report(item), Code::kOk);
  EXPECT_EQ(totals(top).bytes, 65'000) << "it grew into what was reserved";
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, {top, "b", false}); }));
  EXPECT_EQ(totals(top).bytes, 50'000);
  ASSERT_TRUE(set_size(a.inode.id, 0));
  EXPECT_EQ(totals(top).bytes, 0);
}

TEST_F(QuotaTest, WhatWasWrittenWithoutALimitIsChargedNotRefused) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const auto file = make(top, "f", S_IFREG | 0644, true);
  limit(top, 1000, 0);
  store(file, 5000, ops::Keep::kExclusive);
  EXPECT_EQ(totals(top).bytes, 5000);
  EXPECT_EQ(allow(file, 5001).error().code(), Code::kQuotaExceeded);
  EXPECT_EQ(allow(file, 0)->allowed.bytes_max, 5000u);
  EXPECT_EQ(try_make(top, "empty"), Code::kOk) << "an empty file has no bytes";
  ASSERT_TRUE(set_size(file.inode.id, 100));
  EXPECT_EQ(run([&](ops::Env& env) { return ops::statfs(env, top); })->total, 1000u);
}

TEST_F(QuotaTest, AReservationEndsWithItsLeaseAndMovesWithItsFile) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const InodeId other = make(kRootInode, "other", S_IFDIR | 0755).inode.id;
  limit(top, 100'000, 0);
  const auto file = make(top, "f", S_IFREG | 0644, true);
  ASSERT_TRUE(allow(file, 50'000));
  limit(other, 40'000, 0);
  EXPECT_EQ(rename(top, "f", other, "f"), Code::kQuotaExceeded);
  limit(other, 60'000, 0);
  EXPECT_EQ(rename(top, "f", other, "f"), Code::kOk);
  EXPECT_EQ(totals(top).bytes, 0);
  EXPECT_EQ(totals(other).bytes, 50'000);
  ASSERT_TRUE(run([&](ops::Env& env) { return release_exclusive(env.txn, file.inode.id); }));
  EXPECT_EQ(totals(other).bytes, 0);
  EXPECT_FALSE(inode(file.inode.id).flags & InodeRecord::kHasReserved);
}

TEST_F(QuotaTest, StatfsShowsTheTightestAndTheListAllOfThem) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const InodeId inner = make(top, "inner", S_IFDIR | 0755).inode.id;
  const auto file = make(inner, "f", S_IFREG | 0644, true);
  store(file, 4000);
  runner_.cluster.set_space({1 << 30, 1 << 29, false});
  limit(top, 10'000, 5);
  limit(inner, std::uint64_t{1} << 31, 0);
  for (const InodeId at : {inner, file.inode.id}) {
    const auto seen = run([&](ops::Env& env) { return ops::statfs(env, at); }).value();
    EXPECT_EQ(seen.total, 10'000u);
    EXPECT_EQ(seen.available, 6'000u);
    EXPECT_EQ(seen.files_max, 5u);
    EXPECT_EQ(seen.files, 2u);
  }
  EXPECT_EQ(run([&](ops::Env& env) { return ops::statfs(env, {}); })->total, 1u << 30);
  const auto page = [&](InodeId after) {
    return run([&](ops::Env& env) { return ops::get_quotas(env, {{}, after, 1}); }).value();
  };
  EXPECT_EQ(page({}).items.at(0).inode, top);
  EXPECT_FALSE(page({}).end);
  EXPECT_EQ(page(top).items.at(0).inode, inner);
  EXPECT_TRUE(page(top).end);
  limit(top, 0, 0);
  EXPECT_EQ(page({}).items.at(0).inode, inner);
}

TEST_F(QuotaTest, SharedChunksCountInEveryFile) {
  constexpr auto kBytes = static_cast<std::int64_t>(kChunk);
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const auto source = make(kRootInode, "source", S_IFREG | 0644, true);
  store_chunks(source, 3);
  limit(top, 7 * kChunk, 0);
  const auto a = make(top, "a", S_IFREG | 0644, true), b = make(top, "b", S_IFREG | 0644, true);
  ASSERT_TRUE(share(source, a, 0, 0, 3));
  EXPECT_EQ(totals(top).bytes, 3 * kBytes);
  EXPECT_EQ(inode(a.inode.id).bytes, 3 * kChunk);
  ASSERT_TRUE(share(source, a, 0, 0, 3));
  EXPECT_EQ(totals(top).bytes, 3 * kBytes) << "it was there already";
  EXPECT_EQ(allow(a, 3 * kChunk)->allowed.bytes_max, 3 * kChunk) << "writing to it needs nothing more";
  // What was reserved by others is not there.
  ASSERT_TRUE(allow(b, 2 * kChunk));
  EXPECT_EQ(share(source, a, 0, 3, 3).error().code(), Code::kQuotaExceeded);
  EXPECT_EQ(share(source, a, 0, 4, 1)->target.record.bytes, 4 * kChunk) << "the hole before it is free";
  constexpr std::int64_t kAhead = kBytes / 16;
  EXPECT_EQ(totals(top).bytes, 6 * kBytes + kAhead);
  // The copy uses what its holder was allowed.
  EXPECT_EQ(share(source, b, 0, 0, 2)->target.record.bytes, 2 * kChunk);
  EXPECT_EQ(totals(top).bytes, 6 * kBytes + kAhead);
  const InodeRecord before = inode(b.inode.id);
  EXPECT_EQ(share(source, b, 0, 2, 1).error().code(), Code::kQuotaExceeded);
  EXPECT_EQ(inode(b.inode.id), before) << "a refusal changes nothing";
  EXPECT_EQ(rename(kRootInode, "source", top, "source"), Code::kQuotaExceeded);
  ASSERT_TRUE(set_size(a.inode.id, 0));
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::remove(env, {top, "a", false}); }));
  EXPECT_EQ(totals(top).bytes, 2 * kBytes);
  EXPECT_EQ(rename(kRootInode, "source", top, "source"), Code::kOk);
  EXPECT_EQ(totals(top).bytes, 5 * kBytes) << "what two files share counts twice";
}

// --- trash ---

class TrashTest : public QuotaTest {
 protected:
  static constexpr std::int64_t kHour = 3'600'000'000'000;
  TrashTest() { runner_.retention_ns = 24 * kHour; }
  InodeId make_file(InodeId parent, const std::string& name, std::uint64_t bytes = 5000) {
    const auto file = make(parent, name, S_IFREG | 0644, true);
    EXPECT_TRUE(allow(file, 0));
    ops::ReportItem item{file.inode.id, *file.exclusive, true, bytes, {}, bytes};
    item.keep = ops::Keep::kNone;
    item.closed = 1;
    EXPECT_EQ(report(item), Code::kOk);
    return file.inode.id;
  }
  Result<ops::DirsResult> remove(InodeId parent, const std::string& name, bool directory = false) {
    return run([&](ops::Env& env) { return ops::remove(env, {parent, name, directory, 7}); });
  }
  std::vector<TrashEntry> trash(InodeId parent = {}, const std::string& name = {}) {
    std::vector<TrashEntry> out;
    ops::ListTrashArgs args{parent, name, {}, 2};
    for (bool end = false; !end;) {
      auto page = run([&](ops::Env& env) { return ops::list_trash(env, args); }).value();
      for (auto& item : page.items) out.push_back(item.entry);
      args.after = page.next;
      end = page.end;
    }
    return out;
  }
  Code undelete(const TrashEntry& entry, InodeId parent, const std::string& name) {
    auto done = run([&](ops::Env& env) { return ops::undelete(env, {entry.id, parent, name}); });
    return done ? Code::kOk : done.error().code();
  }
  ops::ExpireResult expire(std::int64_t until, std::uint64_t bytes = 0) {
    return run([&](ops::Env& env) { return ops::expire_trash(env, {until, bytes}); }).value();
  }
  Counters counters() {
    return run([&](ops::Env& env) { return load_counters(env.txn); }).value();
  }
};

TEST_F(TrashTest, ADeletedFileComesBackAsItWas) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  limit(top, 100'000, 1);
  const InodeId id = make_file(top, "f");
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::setxattr(env, {id, "user.a", "1", 0}); }));
  const InodeRecord before = inode(id);
  EXPECT_TRUE(remove(top, "f")->kept);
  EXPECT_EQ(inode(id).nlink, 0u);
  EXPECT_EQ(totals(top).bytes, 0) << "the trash counts for no quota";
  EXPECT_EQ(counters().trash_files, 1u);
  EXPECT_EQ(counters().trash_bytes, 5000u);
  const auto kept = trash(top, "f");
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].record.by, 7u);
  EXPECT_EQ(kept[0].expires, kept[0].id.deleted + 24 * kHour);
  // Never over an existing name, never past a quota.
  make_file(top, "f");
  EXPECT_EQ(undelete(kept[0], top, "f"), Code::kExists);
  EXPECT_EQ(undelete(kept[0], top, "g"), Code::kQuotaExceeded);
  EXPECT_EQ(undelete(kept[0], kRootInode, "g"), Code::kOk);
  EXPECT_EQ(undelete(kept[0], kRootInode, "h"), Code::kNotFound);
  InodeRecord after = inode(id);
  EXPECT_EQ(after.parent, kRootInode);
  after.parent = before.parent;
  after.ctime = before.ctime;
  after.change = before.change;
  EXPECT_EQ(after, before);
  EXPECT_EQ(run([&](ops::Env& env) { return ops::getxattr(env, id, "user.a"); }), "1");
  EXPECT_EQ(counters().trash_files, 0u);
  EXPECT_TRUE(trash().empty());
  EXPECT_TRUE(runner_.cluster.purges().empty());
}

TEST_F(TrashTest, WhatIsKept) {
  make_file(kRootInode, "empty", 0);
  EXPECT_FALSE(remove(kRootInode, "empty")->kept);
  make_file(kRootInode, "unsaved", 0);
  EXPECT_TRUE(run([&](ops::Env& env) {
                return ops::remove(env, {kRootInode, "unsaved", false, 0, 10});
              })->kept)
      << "the client has bytes that it did not report";
  make(kRootInode, "link", S_IFLNK | 0777);
  EXPECT_FALSE(remove(kRootInode, "link")->kept);
  const InodeId two = make_file(kRootInode, "one");
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::link(env, {two, kRootInode, "two"}); }));
  EXPECT_FALSE(remove(kRootInode, "one")->kept) << "it has another name";
  EXPECT_TRUE(remove(kRootInode, "two")->kept);
  // Per directory, inherited by the subtree.
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const InodeId inner = make(top, "inner", S_IFDIR | 0755).inode.id;
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::set_retention(env, top, 0); }));
  make_file(inner, "f");
  EXPECT_FALSE(remove(inner, "f")->kept);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::set_retention(env, inner, kHour); }));
  make_file(inner, "f");
  EXPECT_TRUE(remove(inner, "f")->kept);
  EXPECT_EQ(trash(inner).at(0).expires, trash(inner).at(0).id.deleted + kHour);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::set_retention(env, inner, -1); }));
  const auto retention = run([&](ops::Env& env) { return ops::get_retention(env, inner); }).value();
  EXPECT_EQ(retention.own, -1);
  EXPECT_EQ(retention.in_force, 0);
  // Replaced by rename: kept too, and it needs not linger.
  make_file(kRootInode, "new");
  make_file(kRootInode, "old", 100);
  EXPECT_EQ(rename(kRootInode, "new", kRootInode, "old"), Code::kOk);
  EXPECT_EQ(trash(kRootInode, "old").size(), 1u);
  EXPECT_TRUE(runner_.gate.lingering.empty());
  // Emptied by O_TRUNC: not a removal.
  const auto opened = run([&](ops::Env& env) {
    return ops::open(env, {make_file(kRootInode, "cut"), true, true});
  });
  EXPECT_TRUE(trash(kRootInode, "cut").empty());
}

TEST_F(TrashTest, VersionsOfOneNameAreOldestFirst) {
  std::vector<InodeId> made;
  for (int i = 0; i < 3; ++i) {
    made.push_back(make_file(kRootInode, "f"));
    remove(kRootInode, "f").value();
    make_file(kRootInode, "ff");
    remove(kRootInode, "ff").value();
  }
  const auto found = trash(kRootInode, "f");
  ASSERT_EQ(found.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(found[i].id.inode, made[i]);
  EXPECT_EQ(trash(kRootInode).size(), 6u);
  EXPECT_EQ(trash().size(), 6u);
  std::vector<TrashId> ids{found[0].id, found[1].id, found[1].id};
  EXPECT_EQ(run([&](ops::Env& env) { return ops::empty_trash(env, ids); }), 2u);
  EXPECT_EQ(runner_.cluster.purges().size(), 2u);
  EXPECT_EQ(counters().trash_files, 4u);
}

TEST_F(TrashTest, ExpiryTakesWhatIsDueAndPressureTheOldestBeyond) {
  for (const char* name : {"a", "b", "c", "d"}) {
    make_file(kRootInode, name);
    remove(kRootInode, name).value();
  }
  const std::int64_t due = trash(kRootInode, "b").at(0).expires;
  EXPECT_EQ(expire(trash(kRootInode, "a").at(0).expires - 1).files, 0u);
  const auto expired = expire(due);
  EXPECT_EQ(expired.files, 2u);
  EXPECT_EQ(expired.bytes, 10'000u);
  EXPECT_FALSE(expired.more);
  EXPECT_EQ(runner_.cluster.purges().size(), 2u);
  EXPECT_EQ(expire(0, 1).files, 1u);
  EXPECT_TRUE(trash(kRootInode, "c").empty());
  EXPECT_EQ(trash(kRootInode, "d").size(), 1u);
  EXPECT_EQ(expire(0, 1 << 20).files, 1u);
  EXPECT_EQ(counters().trash_bytes, 0u);
}

TEST_F(TrashTest, SharedAreOnlyAsManyBytesAsWereMeant) {
  const auto a = make(kRootInode, "a", S_IFREG | 0644, true), b = make(kRootInode, "b", S_IFREG | 0644, true);
  store_chunks(a, 3);
  ops::ShareArgs args{a.inode.id, *a.exclusive, b.inode.id, *b.exclusive, 1, 0, 2, 2 * kChunk - 1};
  const auto share_again = [&] { return run([&](ops::Env& env) { return ops::share_chunks(env, args); }); };
  EXPECT_EQ(share_again().error().code(), Code::kInvalidArgument);
  args.bytes = 2 * kChunk + 1;
  EXPECT_EQ(share_again().error().code(), Code::kInvalidArgument);
  EXPECT_EQ(inode(b.inode.id).size, 0u);
  args.bytes = 2 * kChunk;
  EXPECT_TRUE(share_again());
  args.bytes = 0;
  EXPECT_TRUE(share_again()) << "an old client does not say";
}

TEST_F(TrashTest, SharedChunksGoWithTheLastFileThatHasThem) {
  const auto a = make(kRootInode, "a", S_IFREG | 0644, true), b = make(kRootInode, "b", S_IFREG | 0644, true),
             c = make(kRootInode, "c", S_IFREG | 0644, true);
  store_chunks(a, 3);
  ASSERT_TRUE(share(a, b, 0, 0, 3));
  ASSERT_TRUE(share(b, c, 1, 0, 2));
  const DataId data = inode(b.inode.id).layers.at(1).data;
  const auto references = [&]() -> std::uint64_t {
    const auto row = runner_.kv.get(keys::data_ref(data)).value();
    return row ? DataRefRecord::decode(*row)->count : 0;
  };
  const auto purged = [&] {
    const auto purges = runner_.cluster.purges();
    return std::count_if(purges.begin(), purges.end(), [&](const auto& purge) { return purge.data == data; });
  };
  for (const auto* file : {&a, &b, &c}) {
    ops::ReportItem item{file->inode.id, *file->exclusive};
    item.keep = ops::Keep::kNone;
    item.closed = 1;
    ASSERT_EQ(report(item), Code::kOk);
  }
  for (const char* name : {"a", "b"}) EXPECT_TRUE(remove(kRootInode, name)->kept);
  EXPECT_EQ(references(), 3u) << "what is in the trash has its chunks";
  EXPECT_EQ(counters().trash_bytes, 6 * kChunk);
  EXPECT_EQ(undelete(trash(kRootInode, "b").at(0), kRootInode, "b2"), Code::kOk);
  EXPECT_EQ(inode(b.inode.id).layers.at(1).data, data);
  const auto first = expire(0, 1);
  EXPECT_EQ(first.files, 1u);
  EXPECT_EQ(first.bytes, 0u) << "nothing is free for it, as others have its chunks";
  EXPECT_EQ(references(), 2u);
  EXPECT_EQ(purged(), 0);
  remove(kRootInode, "b2").value();
  remove(kRootInode, "c").value();
  const auto rest = expire(0, 1);
  EXPECT_EQ(rest.files, 2u) << "the first one gives nothing";
  EXPECT_EQ(rest.bytes, 2 * kChunk);
  EXPECT_EQ(references(), 0u);
  EXPECT_EQ(purged(), 1);
  EXPECT_EQ(counters().trash_bytes, 0u);
}

TEST_F(TrashTest, AnOpenFileIsAnOrphanWhenItsTimeIsOver) {
  const auto file = make(kRootInode, "f", S_IFREG | 0644, true);
  store(file, 5000, ops::Keep::kExclusive);
  EXPECT_TRUE(remove(kRootInode, "f")->kept);
  // It is written on, and reported.
  store(file, 9000, ops::Keep::kExclusive);
  EXPECT_EQ(counters().trash_bytes, 9000u);
  EXPECT_EQ(expire(INT64_MAX).files, 1u);
  EXPECT_EQ(counters().trash_bytes, 0u);
  EXPECT_TRUE(runner_.cluster.purges().empty());
  store(file, 9500, ops::Keep::kExclusive);
  ASSERT_TRUE(run([&](ops::Env& env) { return ops::close_opens(env, file.inode.id, 1); }));
  EXPECT_EQ(runner_.cluster.purges().size(), 1u);
  EXPECT_FALSE(run([&](ops::Env& env) { return ops::getattr(env, file.inode.id); }));
}

TEST_F(TrashTest, ARemovedDirectoryIsRememberedForWhatWasInIt) {
  const InodeId top = make(kRootInode, "top", S_IFDIR | 0755).inode.id;
  const InodeId inner = make(top, "inner", S_IFDIR | 0750).inode.id;
  make(kRootInode, "plain", S_IFDIR | 0755);
  make_file(inner, "f");
  remove(inner, "f").value();
  // What moves takes along what was deleted in it.
  EXPECT_EQ(rename(top, "inner", top, "moved"), Code::kOk);
  EXPECT_EQ(trash(inner, "f").size(), 1u);
  ASSERT_TRUE(remove(top, "moved", true));
  ASSERT_TRUE(remove(kRootInode, "top", true));
  ASSERT_TRUE(remove(kRootInode, "plain", true));
  const auto left = trash(kRootInode);
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].id.name, "top");
  const auto below = trash(top);
  ASSERT_EQ(below.size(), 1u);
  EXPECT_EQ(below[0].record.mode & 07777, 0750u);
  EXPECT_EQ(undelete(below[0], kRootInode, "x"), Code::kIsDirectory);
  EXPECT_EQ(undelete(trash(inner).at(0), kRootInode, "f"), Code::kOk);
  expire(INT64_MAX);
  EXPECT_TRUE(trash().empty());
}

}  // namespace
}  // namespace cairn::meta
