#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "store/base/config.h"
#include "tools/cli/cluster_folder.h"
#include "tools/cli/cluster_path.h"
#include "tools/cli/mount_options.h"
#include "tools/cli/process.h"
#include "tools/cli/progress.h"

namespace cairn::cli {
namespace {
namespace fs = std::filesystem;

class ClusterFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "cairn-cli-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  void TearDown() override { fs::remove_all(path_); }
  fs::path path_;
};

TEST_F(ClusterFolderTest, LaysOutOneFolderAPart) {
  ClusterFolder folder(path_ / "c");
  EXPECT_FALSE(folder.exists());
  UpOptions options;
  options.chunkservers = 12;
  ASSERT_TRUE(folder.create(options));
  EXPECT_TRUE(folder.exists());
  std::vector<Part> parts = folder.parts();
  ASSERT_EQ(parts.size(), 13u);
  EXPECT_EQ(parts[0].name, "meta");
  EXPECT_EQ(parts[2].name, "chunkserver-2");  // by number, not by letters
  EXPECT_EQ(parts[12].name, "chunkserver-12");
  EXPECT_TRUE(fs::is_directory(parts[1].folder / "data"));
  auto address = folder.meta_address();
  ASSERT_TRUE(address);
  EXPECT_TRUE(address->starts_with("127.0.0.1:"));
  EXPECT_EQ(folder.create(options).error().code(), Code::kExists);
}

TEST_F(ClusterFolderTest, RefusesImpossibleNumbers) {
  ClusterFolder folder(path_ / "c");
  UpOptions options;
  options.chunkservers = 2;
  options.replicas = 3;
  EXPECT_EQ(folder.create(options).error().code(), Code::kConfig);
  options.chunkservers = 0;
  EXPECT_EQ(folder.create(options).error().code(), Code::kConfig);
  EXPECT_FALSE(folder.exists());
}

TEST_F(ClusterFolderTest, StalePidFileIsNotARunningProcess) {
  std::ofstream(path_ / "pid") << ::getpid() << "\n";  // alive, but another program
  EXPECT_FALSE(running_pid(path_, "cairn-meta"));
  EXPECT_TRUE(stop(path_, "cairn-meta", std::chrono::seconds(1)));
  EXPECT_FALSE(fs::exists(path_ / "pid"));
}

TEST_F(ClusterFolderTest, MissingProgramIsAnErrorThatNamesIt) {
  auto started = start_detached(path_, path_ / "no-such-program");
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message().find("no-such-program"), std::string::npos);
}

TEST(Progress, HumanNumbers) {
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(3ull << 30), "3.0 GiB");
  EXPECT_EQ(human_seconds(59), "59 s");
  EXPECT_EQ(human_seconds(125), "2 min 05 s");
  EXPECT_EQ(human_seconds(3 * 3600 + 60), "3 h 01 min");
}

TEST(MountOptionsTest, EachGoesWhereItBelongs) {
  fuse::MountOptions options;
  ASSERT_TRUE(apply_mount_options(
      "defaults,_netdev,ro,noatime,,memory=512M,timeout=5,nodev,x-systemd.automount", options));
  EXPECT_TRUE(options.read_only);
  EXPECT_EQ(options.kernel, (std::vector<std::string>{"noatime", "nodev"}));
  EXPECT_EQ(options.client.memory_bytes, 512u << 20);
  EXPECT_EQ(options.client.timeout, std::chrono::seconds(5));
  for (const char* wrong : {"memroy=512M", "memory=", "memory=12", "memory=99999G", "memory=-1M", "timeout=0",
                            "timeout=x", "remount", "ro=1"}) {
    const auto refused = apply_mount_options(wrong, options);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_EQ(refused.error().code(), Code::kConfig) << wrong;
  }
}

TEST(MountOptionsTest, TheHelperOfMountIsCalledAsMountDoes) {
  auto arguments = arguments_of_helper({"meta:7070", "/mnt/x", "-n", "-o", "rw,noatime"});
  ASSERT_TRUE(arguments) << arguments.error().to_string();
  EXPECT_EQ(*arguments,
            (std::vector<std::string>{"mount", "-o", "rw,noatime", "--meta", "meta:7070", "/mnt/x"}));
  EXPECT_TRUE(arguments_of_helper({"meta:7070", "/mnt/x", "-f"})->empty()) << "a dry run does nothing";
  EXPECT_FALSE(arguments_of_helper({"meta:7070"}));
  EXPECT_FALSE(arguments_of_helper({"meta:7070", "/mnt/x", "-o"}));
}

TEST(ClusterPathTest, SizesAndTimesAsPeopleWriteThem) {
  EXPECT_EQ(parse_bytes("4096"), 4096u);
  EXPECT_EQ(parse_bytes("10G"), 10ull << 30);
  EXPECT_EQ(parse_bytes("1.5MiB"), 3u << 19);
  EXPECT_EQ(parse_bytes("0"), 0u);
  for (const char* wrong : {"", "G", "-1", "10X", "10GG", "1e30", "nan"})
    EXPECT_EQ(parse_bytes(wrong).error().code(), Code::kConfig) << wrong;
  EXPECT_EQ(parse_duration("0"), 0);
  EXPECT_EQ(parse_duration("90s"), 90'000'000'000);
  EXPECT_EQ(parse_duration("7d"), 7 * 86'400'000'000'000);
  for (const char* wrong : {"", "5", "d", "-1d", "1y", "999999w"})
    EXPECT_EQ(parse_duration(wrong).error().code(), Code::kConfig) << wrong;
}

TEST(ClusterPathTest, AbsolutePathsOutsideOfMountsAreTheClusters) {
  const auto found = cluster_path("/no-such-folder/./a/../b/");
  ASSERT_TRUE(found) << found.error().to_string();
  EXPECT_EQ(found->path, "/no-such-folder/b");
  EXPECT_TRUE(found->meta.empty());
  EXPECT_EQ(cluster_path("/")->path, "/");
  EXPECT_EQ(cluster_path("").error().code(), Code::kConfig);
}

}  // namespace
}  // namespace cairn::cli
