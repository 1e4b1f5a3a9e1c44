#include "fuse/errno.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <map>

namespace cairn::fuse {
namespace {

TEST(Errno, EveryCodeHasOne) {
  const std::map<Code, int> expected = {
      {Code::kOk, 0},
      {Code::kInvalidArgument, EINVAL},
      {Code::kNotFound, ENOENT},
      {Code::kExists, EEXIST},
      {Code::kPermission, EACCES},
      {Code::kNotPermitted, EPERM},
      {Code::kUnimplemented, EOPNOTSUPP},
      {Code::kInternal, EIO},
      {Code::kTimeout, ETIMEDOUT},
      {Code::kMaybeApplied, ETIMEDOUT},
      {Code::kCancelled, EINTR},
      {Code::kOverloaded, EBUSY},
      {Code::kConfig, EINVAL},
      {Code::kWrongCluster, EIO},
      {Code::kVersionMismatch, EPROTO},
      {Code::kCorrupt, EIO},
      {Code::kNoSpace, ENOSPC},
      {Code::kIo, EIO},
      {Code::kStale, ESTALE},
      {Code::kLocked, EBUSY},
      {Code::kLostUnsynced, EIO},
      {Code::kUnavailable, EHOSTUNREACH},
      {Code::kProtocol, EPROTO},
      {Code::kNotDirectory, ENOTDIR},
      {Code::kIsDirectory, EISDIR},
      {Code::kNotEmpty, ENOTEMPTY},
      {Code::kNameTooLong, ENAMETOOLONG},
      {Code::kTooManyLinks, EMLINK},
      {Code::kCrossesTree, EINVAL},
      {Code::kNoAttribute, ENODATA},
      {Code::kSessionEnded, EIO},
      {Code::kConflict, EEXIST},
      {Code::kNotSealed, EBUSY},
      {Code::kDeleted, ENOENT},
      {Code::kLost, EIO},
      {Code::kStarting, EHOSTUNREACH},
      {Code::kNeedsOperator, EIO},
      {Code::kLeaseLost, ESTALE},
      {Code::kRange, ERANGE},
      {Code::kQuotaExceeded, EDQUOT},
      {Code::kWrongEpoch, EIO},
      {Code::kNotServing, EIO},
      {Code::kBusyPending, EIO},
      {Code::kNotHere, EIO},
      {Code::kDegraded, EHOSTDOWN},
  };
  // Numbers that are no code become kInternal: so this walks exactly the codes there are.
  for (unsigned number = 0; number < 1000; ++number) {
    const Code code = code_from_number(number);
    if (static_cast<unsigned>(code) != number) continue;
    ASSERT_TRUE(expected.contains(code)) << "a new code needs an errno: " << code_name(code);
    EXPECT_EQ(to_errno(code), expected.at(code)) << code_name(code);
    EXPECT_NE(to_errno(code), ENOSYS) << "the kernel would never ask again";
  }
}

TEST(Errno, RangeDependsOnTheOperation) {
  EXPECT_EQ(to_errno(Code::kRange, RangeMeans::kOffset), EFBIG);
  EXPECT_EQ(to_errno(Code::kRange, RangeMeans::kValue), ERANGE);
}

// What an operator must hear of may not be sorted under everyday errors.
TEST(Errno, TroubleIsLogged) {
  for (Code code : {Code::kCorrupt, Code::kLost, Code::kLostUnsynced, Code::kSessionEnded, Code::kTimeout,
                    Code::kUnavailable, Code::kDegraded, Code::kInternal, Code::kNoSpace}) {
    EXPECT_FALSE(is_ordinary(code)) << code_name(code);
  }
  EXPECT_TRUE(is_ordinary(Code::kNotFound));
  EXPECT_TRUE(is_ordinary(Code::kNoAttribute));
}

}  // namespace
}  // namespace cairn::fuse
