# Client <-> chunkserver and chunkserver <-> chunkserver.
@0xd1a5c0de00000002;

using Cxx = import "/capnp/c++.capnp";
using Common = import "common.capnp";
$Cxx.namespace("cairn::schema");

# Who asks, under which configuration. A member refuses another epoch (wrongEpoch), an ended session (sessionEnded).
struct ChunkContext {
  chunk @0 :Common.ChunkId;
  pool @1 :UInt16;
  epoch @2 :UInt64;
  session @3 :UInt64;
  sequence @4 :UInt64;         # of this session; names a mutation for retries. One outstanding write a session and chunk
  leaseGeneration @5 :UInt64;  # fencing token of the exclusive lease under which this is written; 0 for objects
  capability @6 :Data;         # opaque MACed right; empty: all rights (the first feature level)
  ownerHint @7 :UInt64;        # inode; 0: an object
  target @8 :UInt64;           # the member addressed; 0: the one that this server has
}

# A mutation of one chunk. Client -> head (Write), and down the chain (Forward) with the version the head gave it.
struct WriteRequest {
  context @0 :ChunkContext;
  kind @1 :Kind;
  offset @2 :UInt32;           # write, punch
  length @3 :UInt32;           # truncate: new length; punch: bytes
  checksums @4 :List(UInt64);  # one XXH3-64 per 16 KiB block of the payload; empty: the head verifies, merges, computes
  durable @5 :Bool;            # acknowledge only when synced on every member of the chain
  version @6 :Common.Version;  # Forward only
  base @7 :Common.Version;     # Forward only: the version over which this one is applied (zero: none was stored)
  enum Kind {
    write @0;      # payload at offset; a gap becomes zeros
    fresh @1;      # as write, but whatever the member stores is dropped first: the writer knows that no reader was ever
                   # shown content of this chunk (it lay in a hole or past the end)
    put @2;        # an object's chunk, whole, once (kind object): the same bytes again succeed, others are refused
    truncate @3;
    punch @4;
    remove @5;     # leaves a versioned absent record
    reversion @6;  # same content under a new version (before a copy to a returning member)
  }
}
struct WriteReply {
  version @0 :Common.Version;
  digest @1 :Common.Digest;    # of the chunk's content afterwards (put: goes into the seal's receipt)
  length @2 :UInt32;
  available @3 :UInt64;        # Forward only: bytes left on the fullest target from here to the end of the chain
  base @4 :Common.Version;     # Write only: what it was applied over (zero: nothing was stored, or not known any more)
}

struct ReadRequest {
  context @0 :ChunkContext;    # sequence unused
  offset @1 :UInt32;
  length @2 :UInt32;           # cut at the chunk's length
}
# Payload: whole blocks covering the range, cut at the chunk's length. The reader verifies them against `checksums`.
# notFound: this in-sync member knows that the chunk does not exist. busyPending: ask the tail. notHere: ask another.
struct ReadReply {
  version @0 :Common.Version;
  alignedOffset @1 :UInt32;
  chunkLength @2 :UInt32;
  checksums @3 :List(UInt64);
}

# fsync: for each chunk, "is your content at or above this version on disk?" Sent to the head of each group, which asks
# its successor before it answers, and so on: ok means synced on every in-sync member, and on a joiner that holds the
# chunk. A writer names the newest version that it was acknowledged *in each epoch*: after a loss a later version says
# nothing about the earlier ones. lostUnsynced: write again what was written under that version, or fail the fsync.
struct SyncRequest {
  session @0 :UInt64;
  chunks @1 :List(Item);
  struct Item {
    chunk @0 :Common.ChunkId;
    pool @1 :UInt16;
    epoch @2 :UInt64;
    version @3 :Common.Version;
    target @4 :UInt64;         # as in ChunkContext
  }
}
struct SyncReply {
  results @0 :List(Item);      # same order
  struct Item { code @0 :UInt16; epoch @1 :UInt64; }  # ok, wrongEpoch, lostUnsynced, io ...
}

# --- between members of a group ---
# Chunks of a group in hash order. Only an in-sync member (or, while reconciling, any member) answers.
struct ListChunksRequest {
  group @0 :Common.GroupId;
  slots @1 :UInt32;
  epoch @2 :UInt64;
  limit @3 :UInt32;
  after @4 :ChunkEntry;        # last entry of the page before; absent: from the start
  hasAfter @5 :Bool;
  target @6 :UInt64;           # as in ChunkContext
  sync @7 :Bool;               # first put on disk what is listed
}
struct ChunkEntry {
  chunk @0 :Common.ChunkId;
  version @1 :Common.Version;
  length @2 :UInt32;
  state @3 :UInt8;
  object @4 :Bool;
  ownerHint @5 :UInt64;
  digest @6 :Common.Digest;
  session @7 :UInt64;          # last writer
  sequence @8 :UInt64;
}
struct ListChunksReply {
  chunks @0 :List(ChunkEntry);
  done @1 :Bool;
  reconciledAt @2 :UInt64;     # epoch in which this group last reconciled after all members had restarted; 0: never
}

# One chunk for a joiner (whole), or blocks of it for the repair of a damaged copy; payload: the bytes.
# notFound: this member has no record of it. An absent record has entry.state 1 and no payload.
# corrupt: a block of what was asked is damaged here too.
struct FetchRequest {
  chunk @0 :Common.ChunkId;
  group @1 :Common.GroupId;
  epoch @2 :UInt64;
  target @3 :UInt64;
  offset @4 :UInt32;           # a block boundary
  length @5 :UInt32;           # whole blocks, cut at the chunk's length; 0: all of the chunk
}
struct FetchReply { entry @0 :ChunkEntry; checksums @1 :List(UInt64); }

# A joiner asks the head to give a chunk a new version, because it holds a higher one that was never committed.
struct ReversionRequest {
  chunk @0 :Common.ChunkId;
  group @1 :Common.GroupId;
  epoch @2 :UInt64;
  above @3 :Common.Version;
  target @4 :UInt64;           # as in ChunkContext
}

# Not sent by the first feature level: a new epoch blocks each chunk with a pending write until that write reached the end
# of the chain, so that no member needs to know when another one has finished.
struct RolledForwardRequest { group @0 :Common.GroupId; epoch @1 :UInt64; from @2 :UInt64; }

# For `admin` and tests: what one chunkserver holds and does.
struct ChunkserverStatusReply {
  server @0 :UInt64;
  targets @1 :List(Target);
  corruptFound @2 :UInt64;     # bad blocks found since start
  corruptRepaired @3 :UInt64;
  struct Target { id @0 :UInt64; path @1 :Text; state @2 :Text; capacity @3 :UInt64; used @4 :UInt64; chunks @5 :UInt64; }
}
