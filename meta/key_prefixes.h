// The one list of key prefixes of the metadata store. A number is never reused; every value begins with a
// format version. Keys are big-endian so that they sort. Records: meta/records.h (namespace),
// meta/cluster_records.h (cluster).
#pragma once

namespace cairn::meta {

enum class KeyPrefix : unsigned char {
  kSystem = 0x01,   // name -> value: format, cluster id, era, feature level, machine boot id, counters
  kApplied = 0x02,  // -> (era, term, index) applied
  kIdRange = 0x03,  // -> first id not yet reserved

  kInode = 0x10,      // inode BE64 -> InodeRecord
  kDentry = 0x11,     // parent BE64, name -> DentryRecord
  kDirCookie = 0x12,  // parent BE64, cookie BE64 -> name
  kXattr = 0x13,      // inode BE64, name -> value
  kSymlink = 0x14,    // inode BE64 -> target
  kOrphan = 0x15,     // inode BE64 -> unlinked, waits for the last open
  kDataRef = 0x16,    // data BE64 -> DataRefRecord: of data ids that several inodes may refer to
  kDirectory = 0x17,  // inode BE64 -> DirectoryRecord: parent, bytes and inodes of the subtree, next cookie
  kLinkParent =
      0x18,  // inode BE64, parent BE64 -> names in that directory (only of inodes that had several names)

  kDirectorySetting = 0x1a,  // inode BE64 -> a directory with limits or a retention of its own
  kReserved = 0x1b,   // inode BE64 -> bytes that its exclusive holder may still store (below byte quotas)
  kTrash = 0x1c,      // time BE64 (it expires), inode BE64 -> TrashRecord
  kTrashName = 0x1d,  // parent BE64, name, 0, time BE64 (deleted), inode BE64 -> time it expires

  kObject = 0x20,         // namespace, 0, id, 0, version BE64 (escaped) -> ObjectRecord
  kPendingData = 0x21,    // data BE64 -> session, object key: unsealed
  kDeletedObject = 0x22,  // time BE64, object key -> its record says deleted; forgotten later
  kSessionData = 0x23,    // session BE64, data BE64 -> unsealed, by session

  kSession = 0x30,      // session BE64 -> SessionRecord
  kReply = 0x31,        // session BE64, sequence BE64 -> stored reply
  kExclusive = 0x32,    // inode BE64 -> session, generation
  kOpen = 0x33,         // session BE64, inode BE64 -> count of opens
  kOpenBy = 0x34,       // inode BE64 -> count of opens in all sessions
  kExclusiveBy = 0x35,  // session BE64, inode BE64 -> kExclusive, by session

  kServer = 0x40,        // server BE64 -> ServerRecord
  kTarget = 0x41,        // target BE64 -> TargetRecord
  kPool = 0x42,          // pool BE16 -> PoolRecord
  kGroup = 0x43,         // pool BE16, slot BE32 -> GroupRecord
  kJournalBound = 0x44,  // server BE64 -> (era, term, index): see meta/journal_guard.h
  kPurge = 0x50,         // sequence BE64 -> PurgeRecord
  kFence = 0x51,         // sequence BE64 -> session
};

}  // namespace cairn::meta
