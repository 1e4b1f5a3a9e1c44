// The byte streams under RPC, injected so that a simulation can replace the network.
// TCP in production (TcpTransport); MemoryTransport connects inside one process, for tests.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/result.h"
#include "store/rpc/task.h"

namespace cairn::rpc {

class Stream {
 public:
  virtual ~Stream() = default;
  // At least one byte; 0 bytes: the peer closed in good order. One read and one write may be outstanding at a
  // time.
  virtual Task<Result<std::size_t>> read_some(MutableBytes into) = 0;
  virtual Task<Result<>> read_exactly(MutableBytes into) = 0;  // kUnavailable on a close in the middle
  virtual Task<Result<>> write_all(std::span<const Bytes> pieces) = 0;  // gather
  // Writes what goes without waiting and returns how many bytes that was (0: none). Any thread, while no
  // write is outstanding.
  virtual Result<std::size_t> try_write(std::span<const Bytes> pieces) = 0;
  virtual void close() = 0;                      // ends outstanding reads and writes; idempotent; any thread
  virtual std::string peer() const = 0;          // "host:port", for logs
  virtual asio::any_io_executor executor() = 0;  // a strand: reads and writes are awaited on it
};

class Listener {
 public:
  virtual ~Listener() = default;
  virtual Task<Result<std::unique_ptr<Stream>>> accept() = 0;
  virtual std::string address() const = 0;  // with the port really bound
  virtual void close() = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // `address` is HOST:PORT (port 0: any free). Blocking; kConfig for what does not parse or resolve,
  // kUnavailable when in use.
  virtual Result<std::unique_ptr<Listener>> listen(Runtime& runtime, const std::string& address) = 0;
  // kUnavailable: refused (message has "refused"), unreachable; kTimeout.
  virtual Task<Result<std::unique_ptr<Stream>>> connect(Runtime& runtime, std::string address,
                                                        Deadline deadline) = 0;
};

class TcpTransport final : public Transport {
 public:
  Result<std::unique_ptr<Listener>> listen(Runtime& runtime, const std::string& address) override;
  Task<Result<std::unique_ptr<Stream>>> connect(Runtime& runtime, std::string address,
                                                Deadline deadline) override;
};

class MemoryTransport final : public Transport {  // addresses are any text; thread-safe
 public:
  MemoryTransport();
  ~MemoryTransport() override;
  Result<std::unique_ptr<Listener>> listen(Runtime& runtime, const std::string& address) override;
  Task<Result<std::unique_ptr<Stream>>> connect(Runtime& runtime, std::string address,
                                                Deadline deadline) override;
  // Breaks every connection to `address` and lets no new one through until heal(). That is kUnavailable,
  // "unreachable": a cut network never looks like a process that is gone ("refused").
  void cut(const std::string& address);
  void heal(const std::string& address);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cairn::rpc
