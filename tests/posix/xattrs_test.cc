// Extended attributes.
#include <sys/xattr.h>

#include <cstring>
#include <vector>

#include "scratch.h"

namespace posix {
namespace {

class Xattrs : public Posix {
 protected:
  void SetUp() override {
    Posix::SetUp();
    write_file("f", "x");
  }
  std::set<std::string> list(std::string_view name) {
    std::string all(65536, '\0');
    const ssize_t n = ::listxattr(at(name).c_str(), all.data(), all.size());
    EXPECT_GE(n, 0) << std::strerror(errno);
    std::set<std::string> names;
    for (ssize_t i = 0; i < n; i += static_cast<ssize_t>(std::strlen(&all[i])) + 1) names.insert(&all[i]);
    std::erase_if(names, [](const std::string& name) { return !name.starts_with("user."); });
    return names;
  }
  std::string get(std::string_view name, const char* key) {
    std::string value(65536, '\0');
    const ssize_t n = ::getxattr(at(name).c_str(), key, value.data(), value.size());
    EXPECT_GE(n, 0) << key << ": " << std::strerror(errno);
    value.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return value;
  }
};

TEST_F(Xattrs, SetGetListRemove) {
  const std::string path = at("f");
  EXPECT_ERRNO(ENODATA, ::getxattr(path.c_str(), "user.none", nullptr, 0));
  EXPECT_TRUE(list("f").empty());
  ASSERT_OK(::setxattr(path.c_str(), "user.a", "one", 3, 0));
  ASSERT_OK(::setxattr(path.c_str(), "user.b", "", 0, 0));
  EXPECT_EQ(get("f", "user.a"), "one");
  EXPECT_EQ(get("f", "user.b"), "");
  EXPECT_EQ(list("f"), (std::set<std::string>{"user.a", "user.b"}));
  ASSERT_OK(::setxattr(path.c_str(), "user.a", "two!", 4, 0));
  EXPECT_EQ(get("f", "user.a"), "two!");
  ASSERT_OK(::removexattr(path.c_str(), "user.a"));
  EXPECT_ERRNO(ENODATA, ::removexattr(path.c_str(), "user.a"));
  EXPECT_EQ(list("f"), (std::set<std::string>{"user.b"}));
}

TEST_F(Xattrs, SizesAndBuffers) {
  const std::string path = at("f");
  const std::string value = pattern(2000);
  ASSERT_OK(::setxattr(path.c_str(), "user.v", value.data(), value.size(), 0));
  EXPECT_EQ(::getxattr(path.c_str(), "user.v", nullptr, 0), 2000);
  char small[10];
  EXPECT_ERRNO(ERANGE, ::getxattr(path.c_str(), "user.v", small, sizeof small));
  EXPECT_ERRNO(ERANGE, ::listxattr(path.c_str(), small, 2));
  EXPECT_GE(::listxattr(path.c_str(), nullptr, 0), 7);
  EXPECT_TRUE(get("f", "user.v") == value);
  const std::string long_name = "user." + std::string(250, 'n');
  ASSERT_OK(::setxattr(path.c_str(), long_name.c_str(), "x", 1, 0));
  EXPECT_EQ(get("f", long_name.c_str()), "x");
  EXPECT_ERRNO(ERANGE, ::setxattr(path.c_str(), (long_name + "n").c_str(), "x", 1, 0));
}

TEST_F(Xattrs, CreateAndReplace) {
  const std::string path = at("f");
  EXPECT_ERRNO(ENODATA, ::setxattr(path.c_str(), "user.a", "1", 1, XATTR_REPLACE));
  ASSERT_OK(::setxattr(path.c_str(), "user.a", "1", 1, XATTR_CREATE));
  EXPECT_ERRNO(EEXIST, ::setxattr(path.c_str(), "user.a", "2", 1, XATTR_CREATE));
  ASSERT_OK(::setxattr(path.c_str(), "user.a", "3", 1, XATTR_REPLACE));
  EXPECT_EQ(get("f", "user.a"), "3");
}

TEST_F(Xattrs, OfDirectoriesAndThroughDescriptors) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  ASSERT_OK(::setxattr(at("d").c_str(), "user.a", "dir", 3, 0));
  EXPECT_EQ(get("d", "user.a"), "dir");
  Fd fd = open_file("f", O_RDWR);
  ASSERT_OK(::fsetxattr(fd.get(), "user.a", "fd", 2, 0));
  char value[8] = {};
  EXPECT_EQ(::fgetxattr(fd.get(), "user.a", value, sizeof value), 2);
  ASSERT_OK(::rename(at("f").c_str(), at("g").c_str()));
  EXPECT_EQ(get("g", "user.a"), "fd") << "they follow the inode";
}

TEST_F(Xattrs, Namespaces) {
  const std::string path = at("f");
  EXPECT_ERRNO(EOPNOTSUPP, ::setxattr(path.c_str(), "nonsense", "x", 1, 0));
  ASSERT_OK(::symlink("f", at("l").c_str()));
  EXPECT_ERRNO(EPERM, ::lsetxattr(at("l").c_str(), "user.a", "x", 1, 0));
  if (!is_root()) return;
  ASSERT_OK(::setxattr(path.c_str(), "trusted.a", "t", 1, 0));
  EXPECT_EQ(get("f", "trusted.a"), "t");
  EXPECT_EQ(as_nobody([&] { return ::getxattr(path.c_str(), "trusted.a", nullptr, 0) < 0 ? 0 : 1; }), 0);
}

TEST_F(Xattrs, OfRootOnly) {
  if (!is_root()) GTEST_SKIP() << "needs root";
  const std::string path = at("f");
  ASSERT_OK(::chmod(path.c_str(), 0666));
  ASSERT_OK(::setxattr(path.c_str(), "trusted.a", "t", 1, 0));
  ASSERT_OK(::setxattr(path.c_str(), "security.cairn", "s", 1, 0));
  ASSERT_OK(::setxattr(path.c_str(), "user.a", "u", 1, 0));
  const auto names = [&](std::string& all) {
    all.resize(4096);
    const ssize_t n = ::listxattr(path.c_str(), all.data(), all.size());
    all.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return n;
  };
  std::string all;
  ASSERT_OK(names(all));
  EXPECT_NE(all.find("trusted.a"), all.npos);
  EXPECT_NE(all.find("security.cairn"), all.npos);
  EXPECT_EQ(as_nobody([&] {
              std::string mine;
              if (names(mine) < 0) return 1;
              if (mine.find("trusted.") != mine.npos) return 2;
              if (mine.find("user.a") == mine.npos) return 3;
              char value[8];
              if (::getxattr(path.c_str(), "security.cairn", value, sizeof value) != 1) return 4;
              if (::setxattr(path.c_str(), "security.cairn", "x", 1, 0) == 0 || errno != EPERM) return 5;
              if (::setxattr(path.c_str(), "trusted.b", "x", 1, 0) == 0 || errno != EPERM) return 6;
              return ::setxattr(path.c_str(), "user.b", "x", 1, 0) == 0 ? 0 : 7;
            }),
            0);
}

TEST_F(Xattrs, SecurityCapabilityGoesWithAWrite) {
  if (!is_root()) GTEST_SKIP() << "needs root";
  // Version 2, no capability: enough to be there.
  const unsigned char none[20] = {0, 0, 0, 2};
  if (::setxattr(at("f").c_str(), "security.capability", none, sizeof none, 0) != 0) {
    GTEST_SKIP() << "security.capability: " << std::strerror(errno);
  }
  EXPECT_EQ(::getxattr(at("f").c_str(), "security.capability", nullptr, 0), 20);
  write_file("f", "changed");
  EXPECT_ERRNO(ENODATA, ::getxattr(at("f").c_str(), "security.capability", nullptr, 0));
}

}  // namespace
}  // namespace posix
