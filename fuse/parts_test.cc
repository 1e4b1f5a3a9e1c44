// Parts that need no mount.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fuse/attributes.h"
#include "fuse/mount_record.h"
#include "fuse/mount_table.h"
#include "fuse/requests.h"

namespace cairn::fuse {
namespace {

TEST(WaiterState, FromProcStatus) {
  auto status = [](const char* thread, const char* process, const char* blocked, const char* ignored,
                   const char* caught) {
    return std::string("Name:\tx\nState:\tD\nSigQ:\t0/1\nSigPnd:\t") + thread + "\nShdPnd:\t" + process +
           "\nSigBlk:\t" + blocked + "\nSigIgn:\t" + ignored + "\nSigCgt:\t" + caught + "\n";
  };
  const char* none = "0000000000000000";
  const char* kill = "0000000000000100";
  const char* interrupt = "0000000000000002";
  const char* urgent = "0000000000400000";
  EXPECT_EQ(waiter_state(status(none, none, none, none, none)), Waiter::kWaits);
  EXPECT_EQ(waiter_state(status(kill, none, none, none, none)), Waiter::kDying);
  EXPECT_EQ(waiter_state(status(none, kill, none, none, none)), Waiter::kDying);
  EXPECT_EQ(waiter_state(status(none, interrupt, none, none, interrupt)), Waiter::kAskedToStop);
  EXPECT_EQ(waiter_state(status(none, interrupt, none, none, none)), Waiter::kDying)
      << "its default is death";
  EXPECT_EQ(waiter_state(status(none, interrupt, interrupt, none, interrupt)), Waiter::kWaits) << "blocked";
  EXPECT_EQ(waiter_state(status(none, interrupt, none, interrupt, none)), Waiter::kWaits) << "ignored";
  EXPECT_EQ(waiter_state(status(urgent, urgent, none, none, urgent)), Waiter::kWaits);
  EXPECT_EQ(waiter_state(""), Waiter::kWaits);
  EXPECT_EQ(waiter_state("\nSigPnd:"), Waiter::kWaits);
}

TEST(MountTable, ParsesLines) {
  const auto all = parse_mountinfo(
      "22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
      "40 22 0:53 / /mnt/with\\040space rw,nosuid master:1 propagate_from:2 - fuse.cairn 10.0.0.1:7070 "
      "rw,user_id=0\n"
      "garbage\n\n41 22 0:54 / /mnt/x rw - \n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].mountpoint, "/mnt/with space");
  EXPECT_EQ(all[1].type, "fuse.cairn");
  EXPECT_EQ(all[1].source, "10.0.0.1:7070");
  EXPECT_EQ(all[1].device, "0:53");
}

TEST(MountTable, AbsolutePaths) {
  EXPECT_EQ(*absolute_mountpoint("/usr/../usr/lib/"), "/usr/lib");
  EXPECT_EQ(*absolute_mountpoint("/"), "/");
  EXPECT_EQ(*absolute_mountpoint("/proc/self/../nothing-here"), "/proc/nothing-here");
  EXPECT_EQ(absolute_mountpoint("/no/such/parent").error().code(), Code::kNotFound);
  EXPECT_EQ(absolute_mountpoint("").error().code(), Code::kInvalidArgument);
  EXPECT_TRUE(absolute_mountpoint("relative")->starts_with("/"));
}

TEST(MountRecord, OneProcessForAMountpointAndItsLastWords) {
  const std::string at = "/nowhere/" + std::to_string(::getpid());
  EXPECT_TRUE(MountRecord::wait_for_end(at, std::chrono::milliseconds(0))) << "nothing recorded";
  {
    auto record = MountRecord::create(at);
    ASSERT_TRUE(record) << record.error().to_string();
    EXPECT_EQ(MountRecord::create(at).error().code(), Code::kLocked);
    EXPECT_EQ(MountRecord::pid(at), ::getpid());
    EXPECT_EQ(MountRecord::wait_for_end(at, std::chrono::milliseconds(1)).error().code(), Code::kTimeout);
    record->finish({});
  }
  EXPECT_FALSE(MountRecord::pid(at));
  EXPECT_TRUE(MountRecord::wait_for_end(at, std::chrono::milliseconds(0)));
  {
    auto record = MountRecord::create(at);
    record->finish(fail(Code::kNoSpace, "disk full"));
  }
  EXPECT_NE(MountRecord::wait_for_end(at, std::chrono::milliseconds(0)).error().message().find("disk full"),
            std::string::npos);
  { auto died = MountRecord::create(at); }
  EXPECT_NE(MountRecord::wait_for_end(at, std::chrono::milliseconds(0)).error().message().find("died"),
            std::string::npos);
}

TEST(Attributes, ThereAndBack) {
  Attr attr{.inode = InodeId(0x0001000000000007),
            .mode = S_IFREG | 0640,
            .nlink = 2,
            .uid = 3,
            .gid = 4,
            .size = 1ULL << 40};
  attr.bytes = 1000;
  attr.mtime_ns = -1;
  attr.ctime_ns = 1'500'000'001;
  const struct stat st = to_stat(attr);
  EXPECT_EQ(st.st_ino, 0x0001000000000007u);
  EXPECT_EQ(st.st_size, 1LL << 40);
  EXPECT_EQ(st.st_blocks, 2);
  EXPECT_EQ(st.st_mtim.tv_sec, -1);
  EXPECT_EQ(st.st_mtim.tv_nsec, 999'999'999);
  EXPECT_EQ(st.st_ctim.tv_sec, 1);
  EXPECT_EQ(st.st_ctim.tv_nsec, 500'000'001);
  const SetAttr back = to_set_attr(
      st, FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_SIZE);
  EXPECT_EQ(back.valid, kSetMtime | kSetAtimeNow | kSetSize) << "now wins";
  EXPECT_EQ(back.attr.mtime_ns, -1);
  EXPECT_EQ(back.attr.size, 1ULL << 40);
}

TEST(Attributes, KernelNeverCachesLongerThanAllowed) {
  EXPECT_EQ(to_seconds(std::chrono::seconds(5), std::chrono::seconds(10)), 5.0);
  EXPECT_EQ(to_seconds(std::chrono::seconds(50), std::chrono::seconds(10)), 10.0);
  EXPECT_EQ(to_seconds(-std::chrono::seconds(5), std::chrono::seconds(10)), 0.0);
  EXPECT_EQ(to_seconds(std::chrono::milliseconds(250), std::chrono::hours(1)), 0.25);
}

}  // namespace
}  // namespace cairn::fuse
