// Client: one process's connection to a Cairn cluster; the root of the C++ library.
//
//   auto client = cairn::Client::connect({.meta = {"127.0.0.1:7070"}});
//   client->objects().put("results/42", bytes);                  // blocking; durable on return
//   auto data = client->objects().get("results/42");
//
// A client holds one session, kept alive in the background, and io threads of its own. Everything is
// thread-safe. Blocking calls must not be made from the client's own io threads; the `_async` forms are
// coroutines for them. Errors: codes of store/base/result.h. Calls end within their deadline (default:
// options.timeout): a failed server is hidden by retries while enough members are left; kDegraded,
// kUnavailable, kTimeout name what is missing when not. Shutdown: destroying the client flushes dirty data,
// closes the session and joins its threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/ids.h"
#include "store/base/result.h"

namespace cairn {

// What reading does to a file's time of access (client/access_time.h).
enum class AccessTimes { kRelative, kNever };

struct ClientOptions {
  std::vector<std::string> meta = {"127.0.0.1:7070"};  // HOST:PORT, first that answers
  std::chrono::milliseconds timeout{60'000};           // of one call that names no deadline
  std::uint64_t memory_bytes = 256 << 20;  // dirty data, read-ahead and transfers in flight, in all
  unsigned io_threads = 2;
  unsigned parallel_chunks = 16;  // chunk transfers in flight, one call
  std::string name;               // shown to operators; default "host:pid"
  AccessTimes access_times = AccessTimes::kRelative;
};
// Reads CAIRN_META (comma separated) into options.meta if set. kConfig names what does not parse.
Result<ClientOptions> client_options_from_environment();

class Objects;
class FileSystem;
class DirectoryAdmin;

class Client {
 public:
  // Opens a session. kUnavailable names every address tried and why; kWrongCluster; kVersionMismatch.
  static Result<std::unique_ptr<Client>> connect(ClientOptions options);
  virtual ~Client() = default;
  virtual Objects& objects() = 0;
  virtual FileSystem& files() = 0;
  virtual DirectoryAdmin& directories() = 0;
  virtual ClusterId cluster() const = 0;
  virtual SessionId session() const = 0;
  virtual const Clock& clock() const = 0;
  // Metadata server's JSON for operators (`what`: "status", "servers", "groups", "sessions").
  virtual Result<std::string> status(std::string_view what) = 0;
  enum class AdminCommand { kDrain, kUndrain, kForget };
  // kForget gives a dead server up; refused if it holds the last copy of something, unless the loss is
  // accepted.
  enum class Loss { kRefuse, kAccept };
  virtual Result<> admin(AdminCommand command, ServerId server, Loss loss = Loss::kRefuse) = 0;
  // Flushes and closes the session; later calls fail with kCancelled. Idempotent.
  virtual Result<> close() = 0;
};

}  // namespace cairn
