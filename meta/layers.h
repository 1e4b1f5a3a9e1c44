// Layers of files, as changes of an InodeRecord and of the rows that count who refers to a frozen data id
// (docs/layouts.md). Executor thread only.
//
// A count is the number of layers, in all inodes, that name the data id. It changes in the batch that adds or
// drops such a layer; with the last one the data id is handed to the purge queue.
#pragma once

#include "meta/cluster.h"
#include "meta/records.h"
#include "meta/txn.h"

namespace cairn::meta {

// Whether chunk `index` of the file lies in a frozen layer.
bool in_frozen_layer(const InodeRecord& inode, std::uint64_t index);
// The chunks within `window` that the file's own layer holds.
Ranges own_chunks(const InodeRecord& inode, Range window);

// What the file has of all its own chunks becomes a frozen layer, and it gets an empty layer of its own.
// Nothing if it has none.
Result<> freeze(Txn& txn, Cluster& cluster, InodeRecord& inode);

// What the frozen layers of `inode` hold in [from, from + count), as layers of a file that has it at `to`.
std::vector<LayerRecord> shared_pieces(const InodeRecord& inode, std::uint64_t from, std::uint64_t to,
                                       std::uint64_t count);
// kRange: too many layers or ranges. References are counted.
Result<> add_pieces(Txn& txn, InodeRecord& inode, const std::vector<LayerRecord>& pieces);

// No frozen layer holds any of `chunks` any more. Layers that are left empty stay until drop_empty_layers().
void give_up_chunks(InodeRecord& inode, Range chunks);
// Drops frozen layers without chunks, and their references.
Result<> drop_empty_layers(Txn& txn, Cluster& cluster, InodeRecord& inode);
// Of the inode's bytes, those that are free when it is deleted: no other inode shares their chunks.
Result<std::uint64_t> unshared_bytes(Txn& txn, const InodeRecord& inode);
// One reference to a frozen layer's data id less; the last one purges it.
Result<> release_layer(Txn& txn, Cluster& cluster, const LayerRecord& layer);

}  // namespace cairn::meta
