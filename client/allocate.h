// fallocate(2) and lseek(2)'s SEEK_DATA and SEEK_HOLE.
//
// Zeros in a part of a chunk are written like any other bytes. A whole chunk is emptied at its servers,
// synced, and then told to the metadata server as a hole: whoever stops in between leaves a chunk without
// bytes, which reads as zeros too. So space comes back by the chunk, and holes are seen by the chunk.
#pragma once

#include "client/leases.h"

namespace cairn::client {

// Makes the file at least so long (never shorter), with zeros.
rpc::Task<Result<>> grow_to(FileContext& context, Leases& leases, WriteBack& write_back, Reporter& reporter,
                            InodeRef inode, std::uint64_t size, Deadline deadline);
// Empties the chunks that have no bytes outside of `bytes` and returns the range of bytes that those make up
// (in the rest the caller writes zeros). Takes the exclusive lease; if there are any, what was written before
// is durable afterwards, and so is this.
rpc::Task<Result<Range>> empty_chunks(FileContext& context, Leases& leases, WriteBack& write_back,
                                      Reporter& reporter, InodeRef inode, Range bytes, Deadline deadline);

// Under the inode's mutex, its layout and holes are known: bytes of [from, to) for which nothing is stored
// and nothing is dirty.
std::uint64_t unallocated_bytes(const Inode& inode, std::uint64_t from, std::uint64_t to);
// Under the inode's mutex, its layout is known: allocated bytes that the file has when everything dirty, and
// a write of [offset, offset + length), is stored.
std::uint64_t allocated_with(const Inode& inode, std::uint64_t offset, std::uint64_t length);
// Under the inode's mutex: the first byte at or after `offset` that is data (or a hole). The end of the file
// counts as a hole. nullopt: there is none, or `offset` is not below the end (ENXIO).
std::optional<std::uint64_t> seek_data(const Inode& inode, std::uint64_t offset);
std::optional<std::uint64_t> seek_hole(const Inode& inode, std::uint64_t offset);

}  // namespace cairn::client
