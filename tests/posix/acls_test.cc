// Access control lists: enforced, kept in step with the mode, inherited. Raw attributes in Linux's form, so
// that no program is needed.
#include <sys/xattr.h>

#include <cstring>
#include <vector>

#include "scratch.h"

namespace posix {
namespace {

constexpr const char* kAccess = "system.posix_acl_access";
constexpr const char* kDefault = "system.posix_acl_default";
constexpr std::uint16_t kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32;
constexpr std::uint32_t kNobody = 65534;

struct AclRow {
  std::uint16_t tag, permissions;
  std::uint32_t id = UINT32_MAX;
  bool operator==(const AclRow&) const = default;
};
using AclRows = std::vector<AclRow>;
std::ostream& operator<<(std::ostream& out, const AclRow& row) {
  return out << row.tag << ":" << static_cast<std::int32_t>(row.id) << ":" << row.permissions;
}

std::string packed(const AclRows& rows) {
  const std::uint32_t version = 2;
  std::string out(reinterpret_cast<const char*>(&version), sizeof version);
  for (const AclRow& row : rows) out.append(reinterpret_cast<const char*>(&row), sizeof row);
  return out;
}

class Acls : public Posix {
 protected:
  void SetUp() override {
    if (!is_root()) GTEST_SKIP() << "needs root";
    Posix::SetUp();
  }
  int set(std::string_view name, const char* which, const AclRows& rows) const {
    const std::string value = packed(rows);
    return ::setxattr(at(name).c_str(), which, value.data(), value.size(), 0);
  }
  AclRows get(std::string_view name, const char* which) const {  // none: empty
    std::string value(4096, '\0');
    const ssize_t n = ::getxattr(at(name).c_str(), which, value.data(), value.size());
    if (n < 4) {
      EXPECT_EQ(errno, ENODATA) << name;
      return {};
    }
    AclRows rows((static_cast<std::size_t>(n) - 4) / sizeof(AclRow));
    std::memcpy(rows.data(), value.data() + 4, rows.size() * sizeof(AclRow));
    return rows;
  }
  mode_t mode(std::string_view name) const { return stat_of(name).st_mode & 07777; }
  int nobody_opens(std::string_view name, int flags) const {  // 0 or errno
    return as_nobody([&] { return Fd(::open(at(name).c_str(), flags)).ok() ? 0 : errno; });
  }
};

TEST_F(Acls, GrantAndDeny) {
  write_file("f", "x");
  ASSERT_OK(::chmod(at("f").c_str(), 0600));
  EXPECT_EQ(nobody_opens("f", O_RDONLY), EACCES);
  ASSERT_OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 6, kNobody}, {kGroupObj, 0}, {kMask, 6}, {kOther, 0}}));
  EXPECT_EQ(nobody_opens("f", O_RDWR), 0);
  ASSERT_OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 6, kNobody}, {kGroupObj, 0}, {kMask, 4}, {kOther, 0}}));
  EXPECT_EQ(nobody_opens("f", O_RDONLY), 0);
  EXPECT_EQ(nobody_opens("f", O_RDWR), EACCES) << "the mask limits what is named";
  ASSERT_OK(set("f", kAccess, {{kUserObj, 6}, {kUser, 0, kNobody}, {kGroupObj, 6}, {kMask, 6}, {kOther, 6}}));
  EXPECT_EQ(nobody_opens("f", O_RDONLY), EACCES) << "named with nothing, although others may";
  ASSERT_OK(
      set("f", kAccess, {{kUserObj, 6}, {kGroupObj, 0}, {kGroup, 4, kNobody}, {kMask, 7}, {kOther, 0}}));
  EXPECT_EQ(nobody_opens("f", O_RDONLY), 0) << "by group";
  EXPECT_EQ(nobody_opens("f", O_WRONLY), EACCES);
}

TEST_F(Acls, OfDirectories) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0700));
  write_file("d/f", "x");
  EXPECT_EQ(nobody_opens("d/f", O_RDONLY), EACCES);
  ASSERT_OK(set("d", kAccess, {{kUserObj, 7}, {kUser, 7, kNobody}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
  EXPECT_EQ(nobody_opens("d/f", O_RDONLY), 0);
  EXPECT_EQ(as_nobody([&] { return ::mkdir(at("d/made").c_str(), 0700) == 0 ? 0 : errno; }), 0);
  ASSERT_OK(::removexattr(at("d").c_str(), kAccess));
  ASSERT_OK(::chmod(at("d").c_str(), 0700));
  EXPECT_EQ(nobody_opens("d/f", O_RDONLY), EACCES);
}

TEST_F(Acls, TheModeFollowsTheList) {
  write_file("f", "x");
  ASSERT_OK(::chmod(at("f").c_str(), 0600));
  const AclRows rows = {{kUserObj, 7}, {kUser, 4, 10}, {kGroupObj, 1}, {kMask, 6}, {kOther, 4}};
  ASSERT_OK(set("f", kAccess, rows));
  EXPECT_EQ(get("f", kAccess), rows);
  EXPECT_EQ(mode("f"), 0764u) << "the group bits show the mask";
  ASSERT_OK(::removexattr(at("f").c_str(), kAccess));
  EXPECT_EQ(mode("f"), 0764u);
  EXPECT_TRUE(get("f", kAccess).empty());
  ASSERT_OK(::removexattr(at("f").c_str(), kAccess)) << "there always is one, as good as the mode";
}

TEST_F(Acls, TheListFollowsTheMode) {
  write_file("f", "x");
  ASSERT_OK(set("f", kAccess, {{kUserObj, 7}, {kUser, 6, kNobody}, {kGroupObj, 5}, {kMask, 7}, {kOther, 5}}));
  ASSERT_OK(::chmod(at("f").c_str(), 0640));
  EXPECT_EQ(get("f", kAccess),
            (AclRows{{kUserObj, 6}, {kUser, 6, kNobody}, {kGroupObj, 5}, {kMask, 4}, {kOther, 0}}));
  EXPECT_EQ(nobody_opens("f", O_RDONLY), 0);
  EXPECT_EQ(nobody_opens("f", O_WRONLY), EACCES);
  // The same while the file is open for writing, which may keep its attributes on this host.
  Fd fd = open_file("f", O_RDWR);
  ASSERT_EQ(::write(fd.get(), "yy", 2), 2);
  ASSERT_OK(::fchmod(fd.get(), 0600));
  EXPECT_EQ(get("f", kAccess)[3], (AclRow{kMask, 0}));
  EXPECT_EQ(nobody_opens("f", O_RDONLY), EACCES);
}

// Set on a file that was just made and changed: nothing that is still on its way may undo it.
TEST_F(Acls, AfterAChangeOfMode) {
  Fd fd = open_file("f", O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(::write(fd.get(), "x", 1), 1);
  ASSERT_OK(::fchmod(fd.get(), 0640));
  const AclRows rows = {{kUserObj, 6}, {kUser, 6, kNobody}, {kGroupObj, 4}, {kMask, 6}, {kOther, 4}};
  ASSERT_OK(set("f", kAccess, rows));
  ASSERT_EQ(::write(fd.get(), "x", 1), 1);
  ASSERT_OK(::fsync(fd.get()));
  EXPECT_EQ(mode("f"), 0664u);
  EXPECT_EQ(get("f", kAccess), rows);
}

TEST_F(Acls, MinimalListsAreOnlyModes) {
  write_file("f", "x");
  ASSERT_OK(set("f", kAccess, {{kUserObj, 6}, {kGroupObj, 6}, {kOther, 0}}));
  EXPECT_EQ(mode("f"), 0660u);
  EXPECT_TRUE(get("f", kAccess).empty());
  EXPECT_EQ(::listxattr(at("f").c_str(), nullptr, 0), 0);
}

TEST_F(Acls, WhatIsRefused) {
  write_file("f", "x");
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  EXPECT_ERRNO(EINVAL, set("f", kAccess, {{kUserObj, 6}, {kOther, 0}}));
  EXPECT_ERRNO(EINVAL, set("f", kAccess, {{kUserObj, 6}, {kUser, 6, 1}, {kGroupObj, 6}, {kOther, 0}}));
  EXPECT_ERRNO(EACCES, set("f", kDefault, {{kUserObj, 6}, {kGroupObj, 6}, {kOther, 0}}));
  EXPECT_EQ(as_nobody([&] {
              return set("f", kAccess, {{kUserObj, 7}, {kGroupObj, 7}, {kOther, 7}}) == 0 ? 0 : errno;
            }),
            EPERM);
  EXPECT_ERRNO(EOPNOTSUPP, ::setxattr(at("f").c_str(), "system.other", "x", 1, 0));
}

TEST_F(Acls, DefaultsAreInheritedInsteadOfTheUmask) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  const AclRows rows = {{kUserObj, 7}, {kUser, 7, kNobody}, {kGroupObj, 5}, {kMask, 7}, {kOther, 1}};
  ASSERT_OK(set("d", kDefault, rows));
  EXPECT_EQ(mode("d"), 0755u) << "it says nothing of the directory itself";
  ::umask(077);
  write_file("d/f", "x");  // asks for 0644
  ASSERT_OK(::mkdir(at("d/sub").c_str(), 0777));
  ASSERT_OK(::mknod(at("d/p").c_str(), S_IFIFO | 0666, 0));
  ASSERT_OK(::symlink("f", at("d/l").c_str()));
  write_file("outside", "x");
  ::umask(022);
  EXPECT_EQ(mode("outside"), 0600u);
  EXPECT_EQ(get("d/f", kAccess),
            (AclRows{{kUserObj, 6}, {kUser, 7, kNobody}, {kGroupObj, 5}, {kMask, 4}, {kOther, 0}}));
  EXPECT_EQ(mode("d/f"), 0640u);
  EXPECT_TRUE(get("d/f", kDefault).empty());
  EXPECT_EQ(get("d/sub", kAccess), rows);
  EXPECT_EQ(get("d/sub", kDefault), rows);
  EXPECT_EQ(mode("d/sub"), 0771u);
  EXPECT_EQ(mode("d/p"), 0660u);
  EXPECT_EQ(stat_of("d/l").st_mode & 07777, 0777u);
  EXPECT_EQ(nobody_opens("d/f", O_RDONLY), 0);
  EXPECT_EQ(nobody_opens("d/f", O_WRONLY), EACCES);
  EXPECT_EQ(as_nobody([&] { return ::mkdir(at("d/sub/x").c_str(), 0777) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(get("d/sub/x", kDefault), rows) << "handed down further";

  ASSERT_OK(::removexattr(at("d").c_str(), kDefault));
  ::umask(077);
  write_file("d/g", "x");
  ::umask(022);
  EXPECT_EQ(mode("d/g"), 0600u);
}

TEST_F(Acls, MinimalDefaults) {
  ASSERT_OK(::mkdir(at("d").c_str(), 0755));
  ASSERT_OK(set("d", kDefault, {{kUserObj, 7}, {kGroupObj, 7}, {kOther, 0}}));
  ::umask(077);
  const Fd fd(::open(at("d/f").c_str(), O_RDWR | O_CREAT, 0666));
  ::umask(022);
  EXPECT_TRUE(get("d/f", kAccess).empty());
  EXPECT_EQ(mode("d/f"), 0660u);
}

TEST_F(Acls, SetgidGoesUnlessOfTheGroup) {
  write_file("f", "x");
  ASSERT_OK(::chown(at("f").c_str(), kNobody, 4242));
  const AclRows rows = {{kUserObj, 7}, {kUser, 7, 10}, {kGroupObj, 7}, {kMask, 7}, {kOther, 0}};
  ASSERT_OK(::chmod(at("f").c_str(), 02770));
  ASSERT_OK(set("f", kAccess, rows));
  EXPECT_EQ(mode("f"), 02770u);
  EXPECT_EQ(as_nobody([&] { return set("f", kAccess, rows) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(mode("f"), 0770u);
  ASSERT_OK(::chown(at("f").c_str(), kNobody, kNobody));
  ASSERT_OK(::chmod(at("f").c_str(), 02770));
  EXPECT_EQ(as_nobody([&] { return set("f", kAccess, rows) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(mode("f"), 02770u);
}

TEST_F(Acls, FollowTheInode) {
  write_file("f", "x");
  const AclRows rows = {{kUserObj, 6}, {kUser, 4, kNobody}, {kGroupObj, 0}, {kMask, 4}, {kOther, 0}};
  ASSERT_OK(set("f", kAccess, rows));
  ASSERT_OK(::link(at("f").c_str(), at("g").c_str()));
  ASSERT_OK(::rename(at("f").c_str(), at("h").c_str()));
  EXPECT_EQ(get("g", kAccess), rows);
  EXPECT_EQ(get("h", kAccess), rows);
  EXPECT_EQ(nobody_opens("h", O_RDONLY), 0);
}

}  // namespace
}  // namespace posix
