#include "fuse/errno.h"

#include <cerrno>

namespace cairn::fuse {

int to_errno(Code code, RangeMeans range) {
  switch (code) {
    case Code::kOk:
      return 0;

    case Code::kInvalidArgument:
    case Code::kConfig:
    case Code::kCrossesTree:
      return EINVAL;
    case Code::kNotFound:
    case Code::kDeleted:
      return ENOENT;
    case Code::kExists:
    case Code::kConflict:
      return EEXIST;
    case Code::kPermission:
      return EACCES;
    case Code::kNotPermitted:
      return EPERM;
    case Code::kUnimplemented:
      return EOPNOTSUPP;
    case Code::kNotDirectory:
      return ENOTDIR;
    case Code::kIsDirectory:
      return EISDIR;
    case Code::kNotEmpty:
      return ENOTEMPTY;
    case Code::kNameTooLong:
      return ENAMETOOLONG;
    case Code::kTooManyLinks:
      return EMLINK;
    case Code::kNoAttribute:
      return ENODATA;
    case Code::kRange:
      return range == RangeMeans::kOffset ? EFBIG : ERANGE;
    case Code::kNoSpace:
      return ENOSPC;
    case Code::kQuotaExceeded:
      return EDQUOT;

    // The caller's own doing, or somebody else's turn.
    case Code::kCancelled:
      return EINTR;
    case Code::kOverloaded:
    case Code::kLocked:
    case Code::kNotSealed:
      return EBUSY;  // not EAGAIN: no descriptor here is non-blocking, programs would spin

    // The cluster could not be reached, or not in time.
    case Code::kTimeout:
    case Code::kMaybeApplied:
      return ETIMEDOUT;
    case Code::kUnavailable:
    case Code::kStarting:
      return EHOSTUNREACH;
    case Code::kDegraded:
      return EHOSTDOWN;

    case Code::kStale:
    case Code::kLeaseLost:
      return ESTALE;
    case Code::kProtocol:
    case Code::kVersionMismatch:
      return EPROTO;

    // The bytes or the promise about them are gone.
    case Code::kCorrupt:
    case Code::kLost:
    case Code::kLostUnsynced:
    case Code::kSessionEnded:
    case Code::kIo:
    case Code::kInternal:
    case Code::kWrongCluster:
    case Code::kNeedsOperator:
      return EIO;

    // Answers between servers and the client, which acts on them itself: one that gets here is a defect.
    case Code::kWrongEpoch:
    case Code::kNotServing:
    case Code::kBusyPending:
    case Code::kNotHere:
      return EIO;
  }
  return EIO;
}

bool is_ordinary(Code code) {
  switch (code) {
    case Code::kOk:
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kExists:
    case Code::kPermission:
    case Code::kNotPermitted:
    case Code::kUnimplemented:
    case Code::kNotDirectory:
    case Code::kIsDirectory:
    case Code::kNotEmpty:
    case Code::kNameTooLong:
    case Code::kTooManyLinks:
    case Code::kCrossesTree:
    case Code::kNoAttribute:
    case Code::kRange:
    case Code::kQuotaExceeded:
    case Code::kCancelled:
      return true;
    default:
      return false;
  }
}

}  // namespace cairn::fuse
