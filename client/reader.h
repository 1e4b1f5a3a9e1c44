// Reader: bytes of files, out of what is dirty here, what was read ahead, and the chunks.
//
// A read sees every write of this process that was acknowledged before it. Holes, and what a short chunk
// lacks below the file's size, are zeros. A sequential reader has pieces of 1 MiB fetched ahead of it, up to
// 16 MiB, from several chunks at once. Pieces are handed out without a copy. Thread-safe. Owner: the file
// system.
#pragma once

#include "client/file_context.h"
#include "client/leases.h"

namespace cairn::client {

class Reader {
 public:
  Reader(FileContext& context, Leases& leases) : context_(context), leases_(leases) {}

  // Answers if everything is here already.
  std::optional<Result<rpc::Payload>> try_read(const Handle& handle, std::uint64_t offset,
                                               std::uint32_t length);
  rpc::Task<Result<rpc::Payload>> read(Handle handle, std::uint64_t offset, std::uint32_t length);

 private:
  // A part of the answer: bytes, or where they come from.
  struct Slot {
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    bool hole = false;
    rpc::Buffer bytes;
    std::shared_ptr<Fetch> fetch;
  };
  struct Plan {
    std::vector<Slot> slots;
    std::uint64_t lease_serial = 0;
    std::uint64_t layout_changes = 0;
  };
  // Under inode.mutex. `start`: fetches what is missing; else such parts have neither bytes nor fetch.
  enum class Start { kNo, kYes };
  Plan plan(const Handle& handle, std::uint64_t offset, std::uint32_t length, Start start);
  void note_read(FileHandle& handle) const;  // under inode.mutex
  void read_ahead(const Handle& handle, std::uint64_t offset, std::uint64_t end);
  std::shared_ptr<Fetch> start_fetch(const InodeRef& inode, std::uint64_t from, std::uint64_t to,
                                     Budget::Hold memory);
  static rpc::Task<> fetch(ChunkIo& chunks, InodeRef inode, std::shared_ptr<Fetch> fetch, ChunkTarget target,
                           std::uint32_t offset, Deadline deadline);
  static std::optional<Result<rpc::Payload>> assemble(Plan& plan);

  FileContext& context_;
  Leases& leases_;
};

}  // namespace cairn::client
