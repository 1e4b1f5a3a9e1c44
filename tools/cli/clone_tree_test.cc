#include "tools/cli/clone_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace cairn::cli {
namespace {
namespace fs = std::filesystem;

class CloneTree : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "cairn-clone-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  void TearDown() override { fs::remove_all(path_); }
  std::string at(const std::string& name) const { return (path_ / name).string(); }
  void write(const std::string& name, const std::string& text) { std::ofstream(at(name)) << text; }
  std::string read(const std::string& name) {
    std::ifstream in(at(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }
  struct stat stat_of(const std::string& name) {
    struct stat stat {};
    EXPECT_EQ(::lstat(at(name).c_str(), &stat), 0) << name;
    return stat;
  }
  fs::path path_;
};

TEST_F(CloneTree, KeepsWhatATreeHas) {
  fs::create_directories(path_ / "a" / "below");
  write("a/file", "bytes");
  write("a/below/empty", "");
  fs::create_hard_link(at("a/file"), at("a/below/same"));
  fs::create_symlink("nowhere", at("a/link"));
  ASSERT_EQ(::mkfifo(at("a/pipe").c_str(), 0600), 0);
  ASSERT_EQ(::chmod(at("a/file").c_str(), 0640), 0);
  ASSERT_EQ(::chmod(at("a/below").c_str(), 0710), 0);
  const bool attributes = ::setxattr(at("a/file").c_str(), "user.note", "kept", 4, 0) == 0;  // not on all
  const timespec times[] = {{1000, 5}, {2000, 7}};
  for (const char* name : {"a/file", "a/below", "a/link", "a"})
    ASSERT_EQ(::utimensat(AT_FDCWD, at(name).c_str(), times, AT_SYMLINK_NOFOLLOW), 0);

  CloneOptions options;
  auto refused = clone_tree(at("a"), at("b"), options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  options.recursive = true;
  auto done = clone_tree(at("a/"), at("b"), options);
  ASSERT_TRUE(done) << done.error().to_string();
  EXPECT_EQ(done->files, 2u);
  EXPECT_EQ(done->directories, 2u);
  EXPECT_EQ(done->others, 3u);
  EXPECT_EQ(done->bytes, 5u);
  EXPECT_EQ(read("b/file"), "bytes");
  EXPECT_EQ(read("b/below/empty"), "");
  EXPECT_EQ(stat_of("b/file").st_ino, stat_of("b/below/same").st_ino);
  EXPECT_NE(stat_of("b/file").st_ino, stat_of("a/file").st_ino);
  EXPECT_EQ(fs::read_symlink(at("b/link")), "nowhere");
  EXPECT_TRUE(S_ISFIFO(stat_of("b/pipe").st_mode));
  EXPECT_EQ(stat_of("b/file").st_mode & 07777, 0640u);
  EXPECT_EQ(stat_of("b/below").st_mode & 07777, 0710u);
  for (const char* name : {"b/file", "b/below", "b/link", "b"})
    EXPECT_EQ(stat_of(name).st_mtim.tv_sec, 2000) << name;
  if (attributes) {
    char value[8];
    EXPECT_EQ(::getxattr(at("b/file").c_str(), "user.note", value, sizeof value), 4);
  }
}

TEST_F(CloneTree, NeverOverwrites) {
  write("a", "one");
  write("b", "two");
  EXPECT_EQ(clone_tree(at("a"), at("b"), {}).error().code(), Code::kExists);
  fs::create_symlink("nowhere", at("c"));
  EXPECT_EQ(clone_tree(at("a"), at("c"), {}).error().code(), Code::kExists);
  EXPECT_EQ(read("b"), "two");
  EXPECT_EQ(clone_tree(at("none"), at("d"), {}).error().code(), Code::kNotFound);
}

TEST_F(CloneTree, NotIntoItself) {
  fs::create_directories(path_ / "a" / "below");
  CloneOptions options;
  options.recursive = true;
  EXPECT_EQ(clone_tree(at("a"), at("a/below/b"), options).error().code(), Code::kInvalidArgument);
  EXPECT_FALSE(fs::exists(at("a/below/b")));
}

}  // namespace
}  // namespace cairn::cli
