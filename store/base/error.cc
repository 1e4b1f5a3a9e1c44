#include <array>
#include <cstdio>
#include <cstdlib>

#include "store/base/result.h"

namespace cairn {
namespace {

struct CodeName {
  Code code;
  std::string_view name;
};
constexpr std::array kNames = {
    CodeName{Code::kOk, "ok"},
    CodeName{Code::kInvalidArgument, "invalid_argument"},
    CodeName{Code::kNotFound, "not_found"},
    CodeName{Code::kExists, "exists"},
    CodeName{Code::kPermission, "permission"},
    CodeName{Code::kNotPermitted, "not_permitted"},
    CodeName{Code::kUnimplemented, "unimplemented"},
    CodeName{Code::kInternal, "internal"},
    CodeName{Code::kTimeout, "timeout"},
    CodeName{Code::kMaybeApplied, "maybe_applied"},
    CodeName{Code::kCancelled, "cancelled"},
    CodeName{Code::kOverloaded, "overloaded"},
    CodeName{Code::kConfig, "config"},
    CodeName{Code::kWrongCluster, "wrong_cluster"},
    CodeName{Code::kVersionMismatch, "version_mismatch"},
    CodeName{Code::kCorrupt, "corrupt"},
    CodeName{Code::kNoSpace, "no_space"},
    CodeName{Code::kIo, "io"},
    CodeName{Code::kStale, "stale"},
    CodeName{Code::kLocked, "locked"},
    CodeName{Code::kLostUnsynced, "lost_unsynced"},
    CodeName{Code::kUnavailable, "unavailable"},
    CodeName{Code::kProtocol, "protocol"},
    CodeName{Code::kNotDirectory, "not_directory"},
    CodeName{Code::kIsDirectory, "is_directory"},
    CodeName{Code::kNotEmpty, "not_empty"},
    CodeName{Code::kNameTooLong, "name_too_long"},
    CodeName{Code::kTooManyLinks, "too_many_links"},
    CodeName{Code::kCrossesTree, "crosses_tree"},
    CodeName{Code::kNoAttribute, "no_attribute"},
    CodeName{Code::kSessionEnded, "session_ended"},
    CodeName{Code::kConflict, "conflict"},
    CodeName{Code::kNotSealed, "not_sealed"},
    CodeName{Code::kDeleted, "deleted"},
    CodeName{Code::kLost, "lost"},
    CodeName{Code::kStarting, "starting"},
    CodeName{Code::kNeedsOperator, "needs_operator"},
    CodeName{Code::kLeaseLost, "lease_lost"},
    CodeName{Code::kRange, "range"},
    CodeName{Code::kQuotaExceeded, "quota_exceeded"},
    CodeName{Code::kWrongEpoch, "wrong_epoch"},
    CodeName{Code::kNotServing, "not_serving"},
    CodeName{Code::kBusyPending, "busy_pending"},
    CodeName{Code::kNotHere, "not_here"},
    CodeName{Code::kDegraded, "degraded"},
};

}  // namespace

std::string_view code_name(Code code) {
  for (const CodeName& entry : kNames)
    if (entry.code == code) return entry.name;
  return "unknown";
}

Code code_from_number(unsigned number) {
  for (const CodeName& entry : kNames)
    if (static_cast<unsigned>(entry.code) == number) return entry.code;
  return Code::kInternal;
}

Error Error::with(std::string_view context) const {
  std::string text(context);
  text += ": ";
  text += message_;
  return Error(code_, std::move(text));
}

std::string Error::to_string() const {
  std::string text(code_name(code_));
  text += ": ";
  text += message_;
  return text;
}

void check_failed(const char* condition, const char* file, int line, std::string_view text) {
  std::fprintf(stderr, "CHECK failed: %s at %s:%d: %.*s\n", condition, file, line,
               static_cast<int>(text.size()), text.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace cairn
