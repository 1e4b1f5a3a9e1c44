// Result<T>: a value, or an Error that names what failed, where, and what to do.
// Fallible functions return it; nothing in Cairn throws across a folder boundary.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace cairn {

// Numbers are part of the wire protocol and of what scripts see: never reuse one.
// Ranges: 1-99 anyone, 100-199 store/disk, 200-299 rpc, 300-399 meta, 400-499 chunkserver, 500-599 client.
// A code exists only where some caller reacts to it differently; details go in the message.
enum class Code : unsigned short {
  kOk = 0,
  kInvalidArgument = 1,   // the request can never work as it is
  kNotFound = 2,          // no such entry, object, chunk
  kExists = 3,            // create-exclusive found one
  kPermission = 4,        // not allowed (EACCES)
  kNotPermitted = 5,      // not allowed whoever asks (EPERM)
  kUnimplemented = 6,     // this program does not know the request (an older or newer one might)
  kInternal = 7,          // a broken expectation of our own; please report
  kTimeout = 8,           // the deadline passed; the request changed nothing
  kMaybeApplied = 9,      // the outcome of a mutation is unknown: retry with the same (session, sequence)
  kCancelled = 10,        // the caller or a shutdown ended it
  kOverloaded = 11,       // a bounded queue is full; try again later
  kConfig = 12,           // a configuration or command line is wrong
  kWrongCluster = 13,     // the peer or the disk belongs to another cluster
  kVersionMismatch = 14,  // format, protocol or feature level too new or too old

  kCorrupt = 100,       // bytes do not match their checksum, or a record does not decode
  kNoSpace = 101,       // the disk, or the reserve kept free on it, is used up
  kIo = 102,            // the operating system failed the request; the target is suspect
  kStale = 103,         // a lower (or equal) version than what is stored: not applied
  kLocked = 104,        // the data directory is in use by another process
  kLostUnsynced = 105,  // bytes acknowledged but never synced are gone: write them again or fail fsync

  kUnavailable = 200,  // no connection; the request was not sent, or the peer refused before acting
  kProtocol = 201,     // the peer sent what the protocol does not allow

  kNotDirectory = 300,
  kIsDirectory = 301,
  kNotEmpty = 302,
  kNameTooLong = 303,
  kTooManyLinks = 304,
  kCrossesTree = 305,   // rename of a directory into itself (EINVAL)
  kNoAttribute = 306,   // no such xattr
  kSessionEnded = 307,  // this session was ended (expired or fenced): open a new one, dirty data is lost
  kConflict = 308,      // object sealed with other bytes (both digests in the message)
  kNotSealed = 309,     // the object exists but is not sealed yet
  kDeleted = 310,
  kLost = 311,           // no copy is left
  kStarting = 312,       // the server is in its start-up grace; try again
  kNeedsOperator = 313,  // refused until an operator decides (the message says what to run)
  kLeaseLost = 315,      // the lease under which this was sent is no longer held
  kRange = 316,          // value too large for the place (ERANGE, EFBIG)
  kQuotaExceeded = 317,  // more than a directory's quota allows below it (EDQUOT)

  kWrongEpoch = 400,   // the group has another epoch: refresh the routing table and try again
  kNotServing = 401,   // this member does not serve the group now (not in sync, catching up, lease over)
  kBusyPending = 402,  // a write is pending on the chunk: ask the tail
  kNotHere = 403,      // this member cannot say whether the chunk exists

  kDegraded = 500,  // too few servers are up to store this safely
};

// Stable lower-case name ("not_found"): used in logs, --json output and metrics labels.
std::string_view code_name(Code code);
Code code_from_number(unsigned number);  // unknown numbers become kInternal

class [[nodiscard]] Error {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // Puts "context: " before the message, as the error travels up.
  Error with(std::string_view context) const;
  std::string to_string() const;  // "not_found: no object 'x'"

 private:
  Code code_;
  std::string message_;
};

template <class T = void>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Code code, std::string message) {
  return std::unexpected<Error>(Error(code, std::move(message)));
}
inline std::unexpected<Error> fail(Error error) {
  return std::unexpected<Error>(std::move(error));
}

// Aborts with the place and text: for broken invariants of our own memory only, on in release builds.
[[noreturn]] void check_failed(const char* condition, const char* file, int line, std::string_view text);

}  // namespace cairn

#define CAIRN_CONCAT_INNER(a, b) a##b
#define CAIRN_CONCAT(a, b) CAIRN_CONCAT_INNER(a, b)

// TRY(auto x, expression): x is the value, or the function returns the error.
// TRYV(expression): for Result<void>. CO_TRY, CO_TRYV: the same inside coroutines.
// The operand is evaluated into a named variable first: g++ 12 mishandles temporaries around co_await.
#define CAIRN_TRY_IMPL(tmp, decl, expr, ret)     \
  auto tmp = (expr);                             \
  if (!tmp) [[unlikely]]                         \
    ret std::unexpected(std::move(tmp.error())); \
  decl = std::move(*tmp)
#define CAIRN_TRYV_IMPL(tmp, expr, ret)            \
  do {                                             \
    auto tmp = (expr);                             \
    if (!tmp) [[unlikely]]                         \
      ret std::unexpected(std::move(tmp.error())); \
  } while (0)
#define TRY(decl, ...) CAIRN_TRY_IMPL(CAIRN_CONCAT(try_, __COUNTER__), decl, (__VA_ARGS__), return )
#define TRYV(...) CAIRN_TRYV_IMPL(CAIRN_CONCAT(try_, __COUNTER__), (__VA_ARGS__), return )
#define CO_TRY(decl, ...) CAIRN_TRY_IMPL(CAIRN_CONCAT(try_, __COUNTER__), decl, (__VA_ARGS__), co_return )
#define CO_TRYV(...) CAIRN_TRYV_IMPL(CAIRN_CONCAT(try_, __COUNTER__), (__VA_ARGS__), co_return )

#define CHECK(cond, text)                                       \
  do {                                                          \
    if (!(cond)) [[unlikely]]                                   \
      ::cairn::check_failed(#cond, __FILE__, __LINE__, (text)); \
  } while (0)
