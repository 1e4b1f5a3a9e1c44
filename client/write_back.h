// WriteBack: takes written bytes into memory, stores them in the background, and makes them durable when
// asked.
//
// A chunk is flushed when a sequential writer has passed it, when its bytes are about a second old, or when
// memory runs short; at most parallel_chunks transfers run at once, one a chunk. A failed flush drops the
// bytes and leaves an error for the handles of the file. Bytes flushed and not yet synced are kept while
// there is room, so that an fsync can write them again if the servers lost them. Thread-safe. Owner: the file
// system.
#pragma once

#include "client/reporter.h"

namespace cairn::client {

class WriteBack {
 public:
  WriteBack(FileContext& context, Reporter& reporter);

  // Copies the bytes in, without suspending. nullopt: something must be waited for (lease, memory, a
  // truncation). `reserved`: memory from make_room(), used instead of the budget.
  std::optional<Result<std::uint32_t>> try_write(FileHandle& handle, std::uint64_t offset, Bytes data,
                                                 Budget::Hold* reserved = nullptr);
  // Waits for memory to write so many bytes.
  rpc::Task<Result<Budget::Hold>> make_room(std::uint64_t bytes, Deadline deadline);

  // Stores all that is dirty now; fresh writes during the call may stay dirty. Errors are also left for the
  // handles.
  rpc::Task<Result<>> flush(InodeRef inode, Durable durable, Deadline deadline);
  // fsync: all bytes written before are synced, and size and times journaled durably.
  rpc::Task<Result<>> make_durable(InodeRef inode, bool data_only, Deadline deadline);
  // Waits until no chunk is on its way.
  rpc::Task<Result<>> settle(InodeRef inode, Deadline deadline);

  // A file's last handle went: closes it at the server when idle.
  void released(const InodeRef& inode);
  // Under inode.mutex: the bytes will never be stored.
  void discard(Inode& inode);
  // Under inode.mutex: as discard(), for an ended session: handles that may have lost data say so from now
  // on.
  void lose(Inode& inode);
  // Under inode.mutex: chunks from `index` on are gone, there is nothing to sync.
  void forget_from(Inode& inode, std::uint64_t index);
  // All flushed bytes are synced; bytes that the servers lost are dirty again (false).
  rpc::Task<Result<bool>> sync_chunks(InodeRef inode, Deadline deadline);
  // Everything dirty, of all files.
  rpc::Task<Result<>> flush_all(Durable durable, Deadline deadline);
  rpc::Task<> run();  // the clock of the background work

  // Under inode.mutex: an error that this handle did not report yet.
  static std::optional<Error> take_error(FileHandle& handle);
  // Under inode.mutex, bytes just became dirty.
  void queue(const InodeRef& inode);

 private:
  rpc::Task<Result<>> flush_chunk(InodeRef inode, std::uint64_t index, Durable durable, Deadline deadline);
  rpc::Task<Result<>> store(InodeRef inode, std::uint64_t index, Durable durable, Deadline deadline);
  rpc::Task<Result<>> extend_bound(InodeRef inode, std::uint64_t index, Deadline deadline);
  rpc::Task<> extend_ahead(InodeRef inode, std::uint64_t index);
  rpc::Task<> flush_chunk_quietly(InodeRef inode, std::uint64_t index);
  rpc::Task<> flush_quietly(InodeRef inode);
  // Under inode.mutex: notes acknowledged versions, and keeps their bytes if there is room (else their memory
  // is given up).
  void retain(const InodeRef& inode, std::uint64_t index, const std::vector<Version>& versions,
              std::shared_ptr<const ChunkBytes> bytes);
  void drop_retained(std::uint64_t wanted);  // not under an inode's mutex
  void forget_retained(std::vector<Unsynced>& of_chunk);
  void spawn(rpc::Task<> task);

  struct Aged {
    InodeRef inode;
    TimePoint since;
  };
  struct Retained {
    std::weak_ptr<Inode> inode;
    std::uint64_t index = 0;
    std::weak_ptr<const ChunkBytes> bytes;
  };
  FileContext& context_;
  Reporter& reporter_;
  Budget slots_;  // chunk transfers in flight
  std::mutex mutex_;
  std::deque<Aged> dirty_;         // guarded by mutex_: files with dirty bytes, oldest first
  std::deque<Aged> idle_;          // guarded by mutex_: files without handles, to be closed
  std::deque<Retained> retained_;  // guarded by mutex_: oldest first
  std::atomic<std::uint64_t> retained_bytes_{0};
};

}  // namespace cairn::client
