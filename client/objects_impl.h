// Objects over the metadata server and chunk I/O. Blocking calls: the caller's thread reads the source,
// computes the digest and feeds the sink, while chunks travel side by side on the io threads. Thread-safe.
// Owner: the client.
#pragma once

#include "client/chunk_io.h"
#include "client/objects.h"

namespace cairn::client {

class ObjectsImpl final : public Objects {
 public:
  ObjectsImpl(rpc::Runtime& runtime, Session& session, ChunkIo& chunks, Budget& memory,
              const ClientOptions& options)
      : runtime_(runtime), session_(session), chunks_(chunks), memory_(memory), options_(options) {}

  Result<ObjectInfo> put(std::string_view id, Bytes bytes, const PutOptions& options) override;
  Result<ObjectInfo> put(std::string_view id, const Source& source, std::uint64_t size_hint,
                         const PutOptions& options) override;
  Result<std::string> get(std::string_view id) override;
  Result<std::string> get_range(std::string_view id, std::uint64_t offset, std::uint64_t length) override;
  Result<ObjectInfo> get(std::string_view id, const Sink& sink, const Progress& progress) override;
  Result<ObjectInfo> stat(std::string_view id) override;
  Result<Page> list(std::string_view prefix, std::string_view after, std::uint32_t limit) override;
  Result<> remove(std::string_view id) override;
  Result<std::vector<bool>> wait(std::span<const std::string> ids, std::size_t count,
                                 std::chrono::milliseconds timeout) override;

 private:
  struct Created {
    DataId data;
    PoolId pool;
    std::uint32_t chunk_size = 0;
    SessionId session;
  };
  struct Putting;
  struct Reading;
  Deadline deadline_of(const PutOptions& options) const;
  rpc::Task<Result<Created>> create(std::string id, std::uint64_t size, Deadline deadline);
  rpc::Task<Result<ObjectInfo>> seal(std::string id, Created created, std::uint64_t size, Digest digest,
                                     std::vector<ChunkWritten> receipts, std::string lineage,
                                     Deadline deadline);
  rpc::Task<Result<>> abort(Created created, Deadline deadline);
  rpc::Task<Result<ObjectRecord>> record(std::string id, Deadline deadline);
  static rpc::Task<> put_chunk(ChunkIo& chunks, std::shared_ptr<Putting> state, ChunkWrite write,
                               std::size_t index, Budget::Hold memory, Deadline deadline);
  static rpc::Task<> read_chunk(ChunkIo& chunks, std::shared_ptr<Reading> state, ChunkTarget target,
                                std::uint32_t offset, std::uint32_t length, std::size_t slot,
                                Budget::Hold memory, Deadline deadline);
  // Feeds [offset, offset+length) of a sealed object to `sink`, in order.
  Result<> read_range(const ObjectRecord& record, std::uint64_t offset, std::uint64_t length,
                      const Sink& sink, Deadline deadline);

  rpc::Runtime& runtime_;
  Session& session_;
  ChunkIo& chunks_;
  Budget& memory_;
  const ClientOptions& options_;
};

}  // namespace cairn::client
