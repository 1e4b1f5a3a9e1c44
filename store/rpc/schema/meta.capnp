# Client <-> metadata server. Times are nanoseconds since 1970 (Int64). Names are bytes, 1 to 255, without '/' and NUL.
@0xd1a5c0de00000003;

using Cxx = import "/capnp/c++.capnp";
using Common = import "common.capnp";
$Cxx.namespace("cairn::schema");

# Every mutation carries this. The reply of (session, sequence) is kept until the client says, by `awaited`, that it
# waits for none below; a retry gets the stored reply. Sequences of a session need not arrive in order.
struct Mutation { session @0 :UInt64; sequence @1 :UInt64; awaited @2 :UInt64; }

# --- sessions ---
struct OpenSessionRequest { name @0 :Text; resume @1 :UInt64; }  # resume: the session before a reconnect; 0: a new one
struct OpenSessionReply {
  session @0 :UInt64;
  cluster @1 :UInt64;
  leaseMs @2 :UInt32;          # the session ends when silent for so long; the client counts from the send time of a renewal
  featureLevel @3 :UInt32;
  resumed @4 :Bool;            # false with resume != 0: the old session ended; its dirty data is lost (EIO)
  routingVersion @5 :UInt64;
}
# After a metadata server restart a resuming client names all that it holds; what it does not name is released.
struct ReassertRequest { session @0 :UInt64; exclusive @1 :List(UInt64); shared @2 :List(UInt64); open @3 :List(UInt64); last @4 :Bool; }
struct KeepAliveRequest { session @0 :UInt64; }
struct KeepAliveReply { leaseMs @0 :UInt32; routingVersion @1 :UInt64; nearFull @2 :Bool; }
struct CloseSessionRequest { session @0 :UInt64; }

# --- leases ---
# A session that looked an inode up may cache its attributes (and a directory's entries) while it holds it shared;
# exclusive: it alone may write, and owns size and times. Granted with replies; taken back by Recall.
enum LeaseKind { none @0; shared @1; exclusive @2; }
# Shared grants carry a generation too. A reply and a recall may pass each other on the way: a grant whose generation is not
# above that of the last recall (or return) of the inode is void. No grant for what was asked: not to be cached.
struct Grant { inode @0 :UInt64; kind @1 :LeaseKind; generation @2 :UInt64; }

# Reverse call, metadata server -> client: give back down to `keep`. The reply is sent when cached data is dropped and
# dirty bytes are flushed and reported. A client that does not answer within its lease is fenced.
struct RecallRequest { recalls @0 :List(Item); struct Item { inode @0 :UInt64; keep @1 :LeaseKind; generation @2 :UInt64; } }
# Client -> metadata server: recalled or no longer wanted.
struct ReturnLeasesRequest { session @0 :UInt64; items @1 :List(Item); struct Item { inode @0 :UInt64; keep @1 :LeaseKind; generation @2 :UInt64; } }

# --- inodes ---
struct Attr {
  inode @0 :UInt64;
  mode @1 :UInt32;             # type and permission bits, as st_mode
  nlink @2 :UInt32;
  uid @3 :UInt32;
  gid @4 :UInt32;
  rdev @5 :UInt64;
  size @6 :UInt64;
  bytes @7 :UInt64;            # allocated; st_blocks * 512
  atime @8 :Int64;
  mtime @9 :Int64;
  ctime @10 :Int64;
  btime @11 :Int64;
  change @12 :UInt64;          # grows with each change of attributes or (directories) entries
  noXattrs @13 :Bool;          # it has no extended attributes (access control lists are such); false: not known
}
struct Range { from @0 :UInt64; to @1 :UInt64; }   # [from, to)
# chunks: of a frozen layer, the indices of the file that it holds; chunk i of the file is chunk i + shift of the data id.
struct Layer { data @0 :UInt64; pool @1 :UInt16; chunkSize @2 :UInt32; frozen @3 :Bool; chunks @4 :List(Range); shift @5 :Int64; }
struct Layout {
  layers @0 :List(Layer);      # the first is the file's own: it holds what is neither a hole nor in a later one, which are frozen
  holes @1 :List(Range);       # chunk indices below the size that were never written
  trim @2 :Range;              # bytes to be trimmed before the file may grow past `from` (empty: none)
  bound @3 :UInt64;            # first chunk index that the holder may not write yet
  # In the answers to Open, Make, SetAttr: the file is below a byte quota, and its exclusive holder may let it have so many
  # allocated bytes; ExtendBound asks for more.
  limited @4 :Bool;
  bytesMax @5 :UInt64;
}

struct LookupRequest { session @0 :UInt64; parent @1 :UInt64; name @2 :Data; }
# No such name: status ok with attr.inode = 0, so that the grant on the parent can come along (a negative entry may be cached).
struct LookupReply { attr @0 :Attr; grants @1 :List(Grant); }
struct GetAttrRequest { session @0 :UInt64; inode @1 :UInt64; }
# parentAttr (here and in MakeReply), DirsReply: the directory after the change, so that a client that holds it need not ask
# for its attributes after each name it makes or removes. Absent: the client asks again.
# layout: of regular files, in the answer to GetAttr.
struct AttrReply { attr @0 :Attr; grants @1 :List(Grant); parentAttr @2 :Attr; layout @3 :Layout; }
# kept: the file whose last name went is in the trash now, and may come back: what is not reported of it still counts.
struct DirsReply { parent @0 :Attr; newParent @1 :Attr; kept @2 :Bool; }

struct SetAttrRequest {
  mutation @0 :Mutation;
  inode @1 :UInt64;
  valid @2 :UInt32;            # bits: 1 mode, 2 uid, 4 gid, 8 size, 16 atime, 32 mtime, 64 atime now, 128 mtime now, 256 ctime
  attr @3 :Attr;
  generation @4 :UInt64;       # size: of the exclusive lease held
  # size: the holder's file was longer. Bytes that no report covers may be stored behind it: they are to be trimmed.
  shrinks @5 :Bool;
}
struct SetAttrReply { attr @0 :Attr; layout @1 :Layout; }

struct MakeRequest {           # create, mkdir, symlink, mknod by the type in `mode`
  mutation @0 :Mutation;
  parent @1 :UInt64;
  name @2 :Data;
  mode @3 :UInt32;
  uid @4 :UInt32;
  gid @5 :UInt32;
  rdev @6 :UInt64;
  target @7 :Data;             # symlink
  exclusive @8 :Bool;          # exists: an error (else, for a regular file, that file)
  open @9 :Bool;               # regular file: also open it for writing: grants it exclusively
  # Permission bits before the umask was taken off, for a directory with a default access control list: that one
  # counts instead of the umask. 0: `mode` counts there too.
  fullMode @10 :UInt32;
}
struct MakeReply { attr @0 :Attr; grants @1 :List(Grant); layout @2 :Layout; created @3 :Bool; parentAttr @4 :Attr; }

struct OpenRequest { mutation @0 :Mutation; inode @1 :UInt64; write @2 :Bool; truncate @3 :Bool; }
struct OpenReply { attr @0 :Attr; grants @1 :List(Grant); layout @2 :Layout; }

# What a holder of exclusive leases did. Applied in order, one batch; many files in one request.
struct ReportRequest {
  mutation @0 :Mutation;
  items @1 :List(Item);
  durable @2 :Bool;            # reply when the journal is synced (fsync)
  struct Item {
    inode @0 :UInt64;
    generation @1 :UInt64;
    hasSize @2 :Bool;          # size, written, bytes, trimDone are given
    size @3 :UInt64;
    written @4 :List(Range);   # chunk indices written since the last report
    bytes @5 :UInt64;          # allocated, absolute
    trimDone @6 :Bool;
    atime @7 :Int64;           # 0: unchanged
    mtime @8 :Int64;
    closed @9 :UInt32;         # so many opens of this session ended
    keep @10 :LeaseKind;       # afterwards the session holds the inode so
    hasMode @11 :Bool;
    mode @12 :UInt32;          # permission bits
    punched @13 :List(Range);  # chunk indices emptied since the last report: holes again (with hasSize)
    hasBytesMax @14 :Bool;     # the holder needs only so many allocated bytes of what it was allowed: the rest is given back
    bytesMax @15 :UInt64;
    ctime @16 :Int64;          # of the last change that the holder made; it never goes back. 0: now
    # The holder has bytes that are not stored, of an inode whose last name went: if `closed` are its last opens
    # anywhere, it goes, and the bytes need not be stored. Else nothing happens (code exists): others may read them.
    ifLast @17 :Bool;
  }
}
struct ReportReply { codes @0 :List(UInt16); }   # one an item; leaseLost: this session does not hold it any more; overloaded: report it again
# bytes: the file wants to have so many allocated bytes (0: not asked); quotaExceeded if a quota above it does not allow them.
# needed: a bound below it is of no use (0: any is), however little space there is: what lies between may stay holes.
struct ExtendBoundRequest {
  mutation @0 :Mutation;
  inode @1 :UInt64;
  generation @2 :UInt64;
  bound @3 :UInt64;
  bytes @4 :UInt64;
  needed @5 :UInt64;
}
struct ExtendBoundReply { bound @0 :UInt64; limited @1 :Bool; bytesMax @2 :UInt64; }  # the latter as in Layout
# Chunks of the source become chunks of the target too, which holds them frozen. The session holds the target exclusively, and
# the source too while that has such chunks in its own layer; what it wrote to both is synced and reported. range: copy.
# bytes: what the source has of these chunks, as the session knows it (0: an old client, which does not say); invalid_argument if
# it has more or fewer by now.
struct ShareChunksRequest {
  mutation @0 :Mutation;
  source @1 :UInt64;
  sourceGeneration @2 :UInt64;
  target @3 :UInt64;
  generation @4 :UInt64;
  from @5 :UInt64;             # chunk indices
  to @6 :UInt64;
  count @7 :UInt64;
  bytes @8 :UInt64;
}
struct ShareChunksReply { attr @0 :Attr; layout @1 :Layout; sourceLayout @2 :Layout; }   # attr, layout: of the target

# unlink, rmdir. uid: who removes it; size: of the file, if this client knows of more than it reported (an empty file is not
# kept in the trash).
struct RemoveRequest { mutation @0 :Mutation; parent @1 :UInt64; name @2 :Data; directory @3 :Bool; uid @4 :UInt32; size @5 :UInt64; }
struct RenameRequest {
  mutation @0 :Mutation;
  parent @1 :UInt64;
  name @2 :Data;
  newParent @3 :UInt64;
  newName @4 :Data;
  flags @5 :UInt32;            # 1 NOREPLACE, 2 EXCHANGE, 4 WHITEOUT (as renameat2)
  uid @6 :UInt32;              # who makes the whiteout, and removes what is replaced
  gid @7 :UInt32;
  size @8 :UInt64;             # of what is replaced, as in RemoveRequest
}
struct LinkRequest { mutation @0 :Mutation; inode @1 :UInt64; parent @2 :UInt64; name @3 :Data; }
struct ReadLinkReply { target @0 :Data; }
struct InodeRequest { session @0 :UInt64; inode @1 :UInt64; }

struct ReadDirRequest {
  session @0 :UInt64;
  inode @1 :UInt64;
  cookie @2 :UInt64;           # 0: start; else of the last entry got. Stable while the directory lives
  limit @3 :UInt32;
  plus @4 :Bool;               # with attributes, and a shared grant on each; attr.inode = 0: held exclusively elsewhere, ask
}
struct ReadDirReply {
  entries @0 :List(Entry);     # without "." and ".."
  end @1 :Bool;
  parent @2 :UInt64;           # inode of ".."
  grants @3 :List(Grant);
  struct Entry { name @0 :Data; inode @1 :UInt64; type @2 :UInt32; cookie @3 :UInt64; attr @4 :Attr; }
}

struct GetXattrRequest { session @0 :UInt64; inode @1 :UInt64; name @2 :Data; }
struct GetXattrReply { value @0 :Data; }
struct SetXattrRequest { mutation @0 :Mutation; inode @1 :UInt64; name @2 :Data; value @3 :Data; flags @4 :UInt32; }  # 1 create, 2 replace; with an access control list: 4 clear the set-group-id bit
struct ListXattrReply { names @0 :List(Data); }
struct RemoveXattrRequest { mutation @0 :Mutation; inode @1 :UInt64; name @2 :Data; }

struct StatFsRequest { inode @0 :UInt64; }  # 0: the cluster; else with the quotas above it
# filesMax: of the quota on inodes with the least left (0: none); then `files` are those that account to it.
struct StatFsReply { total @0 :UInt64; available @1 :UInt64; files @2 :UInt64; filesMax @3 :UInt64; }

# --- quotas: limits on what a directory's subtree has; 0: none ---
struct SetQuotaRequest { mutation @0 :Mutation; inode @1 :UInt64; valid @2 :UInt32; bytes @3 :UInt64; inodes @4 :UInt64; }  # valid: 1 bytes, 2 inodes
struct GetQuotasRequest {
  session @0 :UInt64;
  inode @1 :UInt64;            # of this directory, limited or not; 0: of all that are limited
  after @2 :UInt64;            # the last inode of the page before
  limit @3 :UInt32;
}
struct GetQuotasReply {
  items @0 :List(Item);
  end @1 :Bool;
  # bytes, inodes: what the subtree has; bytes with what writers were allowed and did not store yet.
  struct Item { inode @0 :UInt64; bytesMax @1 :UInt64; inodesMax @2 :UInt64; bytes @3 :UInt64; inodes @4 :UInt64; }
}

# --- trash: files whose last name went, until their retention is over or their space is needed ---
struct SetRetentionRequest { mutation @0 :Mutation; inode @1 :UInt64; nanoseconds @2 :Int64; }  # 0: nothing is kept; -1: as above it
struct GetRetentionReply { own @0 :Int64; inForce @1 :Int64; }   # own: -1 if it has none
struct TrashEntry {
  inode @0 :UInt64;
  parent @1 :UInt64;           # the directory that it was removed from
  name @2 :Data;
  deleted @3 :Int64;
  expires @4 :Int64;
  attr @5 :Attr;               # directories: mode and owner only
  by @6 :UInt32;               # uid of who removed it
  client @7 :Data;             # name of the client that did
}
# Removed directories are listed too, if something that was deleted in them is in the trash.
struct ListTrashRequest {
  session @0 :UInt64;
  parent @1 :UInt64;           # 0: everything, in no useful order
  name @2 :Data;               # with `parent`: of this name only; oldest first
  after @3 :Data;              # `next` of the page before
  limit @4 :UInt32;
}
struct ListTrashReply { items @0 :List(TrashEntry); next @1 :Data; end @2 :Bool; files @3 :UInt64; bytes @4 :UInt64; }
struct TrashId { inode @0 :UInt64; parent @1 :UInt64; name @2 :Data; deleted @3 :Int64; }   # as listed
struct UndeleteRequest { mutation @0 :Mutation; id @1 :TrashId; parent @2 :UInt64; name @3 :Data; }  # exists: never over an existing name
struct EmptyTrashRequest { mutation @0 :Mutation; ids @1 :List(TrashId); }
struct EmptyTrashReply { removed @0 :UInt32; }
# The servers are full: what has been longest in the trash goes, at least so many bytes. Replies when the space is free.
# freed: there was something, try again.
struct ReclaimRequest { session @0 :UInt64; bytes @1 :UInt64; }
struct ReclaimReply { freed @0 :Bool; }

struct SyncMetaRequest { session @0 :UInt64; }   # replies when everything replied to before is durable

# --- objects ---
struct ObjectKey { namespace @0 :Data; id @1 :Data; version @2 :UInt64; }
enum ObjectState { pending @0; sealedMemory @1; sealed @2; deleted @3; lost @4; }
struct ObjectRecord {
  key @0 :ObjectKey;
  state @1 :ObjectState;
  size @2 :UInt64;
  digest @3 :Common.Digest;
  layout @4 :Layout;
  created @5 :Int64;
  sealed @6 :Int64;
  lineage @7 :Data;
}
# size: if known; what may have been written is removed when the writer dies before it seals (0: up to 65536 chunks).
struct CreateObjectRequest { mutation @0 :Mutation; key @1 :ObjectKey; size @2 :UInt64; }
struct CreateObjectReply { data @0 :UInt64; pool @1 :UInt16; chunkSize @2 :UInt32; }
struct SealRequest {
  mutation @0 :Mutation;
  key @1 :ObjectKey;
  data @2 :UInt64;
  size @3 :UInt64;
  digest @4 :Common.Digest;
  receipts @5 :List(Receipt);  # one a chunk, in order: what the chain acknowledged as durable
  lineage @6 :Data;
  struct Receipt { version @0 :Common.Version; digest @1 :Common.Digest; }
}
struct SealReply { record @0 :ObjectRecord; existed @1 :Bool; }  # existed: the same bytes were sealed before
struct AbortObjectRequest { mutation @0 :Mutation; data @1 :UInt64; }
struct GetObjectsRequest { session @0 :UInt64; keys @1 :List(ObjectKey); waitMs @2 :UInt32; waitCount @3 :UInt32; }
struct GetObjectsReply { results @0 :List(Item); struct Item { code @0 :UInt16; record @1 :ObjectRecord; } }
struct ListObjectsRequest { namespace @0 :Data; prefix @1 :Data; after @2 :Data; limit @3 :UInt32; }
# Sealed and lost ones whose id begins with `prefix`, in order of (id, version), after the id `after` (empty: from the first).
struct ListObjectsReply { records @0 :List(ObjectRecord); done @1 :Bool; }
struct DeleteObjectRequest { mutation @0 :Mutation; key @1 :ObjectKey; }
