// The superblock file: who this target is. Replaced as a whole (written aside, synced, renamed), so that it
// is always either the old or the new one.
//
//   file = "CAIRNDSK" format:u32(1) cluster:u64 server:u64 target:u64 era:u16 boot_count:u64 clean:u8
//          extent_file_bytes:u64 boot_id:text checksum:u64 (XXH3-64 of all before)
#pragma once

#include <string>

#include "store/disk/chunk_engine.h"
#include "store/disk/disk.h"

namespace cairn::disk {

std::string encode_superblock(const Superblock& superblock);
Result<Superblock> decode_superblock(std::string_view text);  // kCorrupt, kVersionMismatch

// kNotFound: `dir` is missing or empty. kCorrupt: it has content but no good superblock.
Result<Superblock> read_superblock(Disk& disk, const std::string& dir);
// On return it survives a power cut.
Result<> write_superblock(Disk& disk, const std::string& dir, const Superblock& superblock);

// What `dir` holds besides what a target may find there before it is formatted ("lost+found", a torn format).
Result<std::vector<std::string>> foreign_names(Disk& disk, const std::string& dir);

}  // namespace cairn::disk
