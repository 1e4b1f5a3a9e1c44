// WriteBack: takes written bytes into memory, stores them in the background, and makes them durable when
// asked.
//
// A chunk is flushed when a sequential writer has passed it, when its bytes are some seconds old, or when
// memory runs short; at most parallel_chunks transfers run at once, one a chunk. Bytes that can't be
// stored now stay dirty and are tried again; only with their lease or session they go, and leave an error for
// the handles of the file. Bytes flushed and not yet synced are kept while there is room, so that an fsync
// can write them again if the servers lost them. Thread-safe. Owner: the file system.
#pragma once

#include "client/reporter.h"
#include "client/sync_ledger.h"

namespace cairn::client {

class WriteBack {
 public:
  WriteBack(FileContext& context, Reporter& reporter);

  // Copies the bytes in, without suspending. nullopt: something must be waited for (lease, memory, a
  // truncation). `reserved`: memory from make_room(), used instead of the budget.
  std::optional<Result<std::uint32_t>> try_write(FileHandle& handle, std::uint64_t offset, Bytes data,
                                                 Budget::Hold* reserved = nullptr);
  // A quota limits the file, and the write needs more than it was allowed: asks for that. kQuotaExceeded.
  rpc::Task<Result<>> make_allowed(InodeRef inode, std::uint64_t bytes, Deadline deadline);
  // Gives back what files here were allowed and do not need. False: there was nothing.
  rpc::Task<bool> return_room(Deadline deadline);
  // Under inode.mutex: allocated bytes that the file must be allowed for this write; nullopt: it is.
  static std::optional<std::uint64_t> not_allowed(const Inode& inode, std::uint64_t offset,
                                                  std::uint64_t length);
  // Waits for memory to write so many bytes.
  rpc::Task<Result<Budget::Hold>> make_room(std::uint64_t bytes, Deadline deadline);

  // Stores all that is dirty now; fresh writes during the call may stay dirty. What can't be stored now is
  // kept and tried again while the session lives; what was given up is also told to the handles.
  enum class For { kAnyone, kRecall };
  rpc::Task<Result<>> flush(InodeRef inode, Durable durable, Deadline deadline, For what = For::kAnyone);
  // fsync: all bytes written before are synced, and size and times journaled durably.
  rpc::Task<Result<>> make_durable(InodeRef inode, bool data_only, Deadline deadline);
  // Nothing of the chunk is dirty, and no new bytes come in: if others share it, all that the file has of it
  // goes into the file's own layer, durably; to be reported.
  rpc::Task<Result<>> copy_up(InodeRef inode, std::uint64_t index, Deadline deadline);
  // Waits until no chunk is on its way.
  rpc::Task<Result<>> settle(InodeRef inode, Deadline deadline);

  // Stores what is dirty, and reports, without delay and without waiting.
  void save_soon(const InodeRef& inode) { spawn(flush_quietly(inode)); }
  // A file's last handle went: closes it at the server when idle.
  void released(const InodeRef& inode);
  // Under inode.mutex: the bytes will never be stored.
  void discard(Inode& inode);
  // Under inode.mutex: as discard(), for an ended session: handles that may have lost data say so from now
  // on.
  void lose(Inode& inode);
  // Asks whether all flushed bytes are synced.
  rpc::Task<Result<SyncLedger::Outcome>> sync_chunks(InodeRef inode, Deadline deadline);
  // Under inode.mutex: what is not known to be synced by now never will be: an error for the next fsync.
  void give_up_unsynced(Inode& inode);
  // Everything dirty, of all files.
  rpc::Task<Result<>> flush_all(Durable durable, Deadline deadline);
  rpc::Task<> run();  // the clock of the background work

  // Under inode.mutex: an error that this handle did not report yet.
  static std::optional<Error> take_error(FileHandle& handle);
  SyncLedger& ledger() { return ledger_; }
  // Under inode.mutex, bytes just became dirty.
  void queue(const InodeRef& inode);
  // Bytes did not fit on the servers a moment ago. Who writes then waits for what is dirty in his file.
  bool out_of_space() const;

 private:
  rpc::Task<Result<>> flush_chunk(InodeRef inode, std::uint64_t index, Durable durable, Deadline deadline,
                                  For what = For::kAnyone);
  // False: nothing was done, because the file is being made empty.
  rpc::Task<Result<bool>> store(InodeRef inode, std::uint64_t index, Durable durable, Deadline deadline);
  rpc::Task<Result<>> extend_bound(InodeRef inode, std::uint64_t index, Deadline deadline,
                                   bool ahead = false);
  rpc::Task<Result<>> ask_allowance(InodeRef inode, std::uint64_t bytes, Deadline deadline);
  rpc::Task<> extend_ahead(InodeRef inode, std::uint64_t index);
  void kept(const InodeRef& inode, const Error& error);
  void given_up(Inode& inode, const Error& error);
  rpc::Task<> flush_chunk_quietly(InodeRef inode, std::uint64_t index);
  rpc::Task<> flush_quietly(InodeRef inode);
  rpc::Task<> sweep();
  void spawn(rpc::Task<> task);

  struct Aged {
    InodeRef inode;
    TimePoint since;
  };
  FileContext& context_;
  Reporter& reporter_;
  SyncLedger ledger_;
  Budget slots_;         // chunk transfers in flight
  Budget recall_slots_;  // of recalls, which do not wait for chunks that can't be stored just now
  std::mutex mutex_;
  std::deque<Aged> dirty_;  // guarded by mutex_: files with dirty bytes, oldest first
  std::deque<Aged> idle_;   // guarded by mutex_: files without handles, to be closed
  std::atomic<bool> sweeping_{false};
  std::atomic<TimePoint> full_until_{TimePoint{}};
};

}  // namespace cairn::client
