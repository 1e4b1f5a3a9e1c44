# Chunkserver <-> metadata server, the routing table, and what operators ask.
@0xd1a5c0de00000004;

using Cxx = import "/capnp/c++.capnp";
using Common = import "common.capnp";
$Cxx.namespace("cairn::schema");

# --- routing table: fetched by changes since a version ---
struct Member {
  target @0 :UInt64;
  server @1 :UInt64;
  inSync @2 :Bool;             # joiners are not, and stand last in the chain
}
struct Group {
  id @0 :Common.GroupId;
  epoch @1 :UInt64;
  members @2 :List(Member);    # in chain order: head first
  barrier @3 :Bool;            # a removed member is neither confirmed nor proven dead yet: acknowledge nothing
  reconcile @4 :Bool;          # all members restarted: the head compares with every other before anyone serves
  version @5 :UInt64;          # routing version of this entry's last change
}
struct Pool { id @0 :UInt16; slots @1 :UInt32; replicas @2 :UInt8; minReplicas @3 :UInt8; chunkSize @4 :UInt32; }
struct ServerEntry { id @0 :UInt64; address @1 :Text; state @2 :ServerState; }
enum ServerState { up @0; suspect @1; dead @2; draining @3; }
struct RoutingRequest { known @0 :UInt64; }      # 0: everything
struct Routing {
  version @0 :UInt64;
  full @1 :Bool;
  pools @2 :List(Pool);
  servers @3 :List(ServerEntry);
  groups @4 :List(Group);      # those that changed after `known`
  waitingServers @5 :UInt32;   # groups have no members yet: so many more servers must register (0: laid out). Writes fail: degraded
}

# --- chunkservers ---
# An empty chunkserver asks for its identity, then formats its disks with it.
struct JoinRequest { address @0 :Text; labels @1 :List(Text); }    # labels "rack=a", "host=b": failure domains
struct JoinReply { cluster @0 :UInt64; server @1 :UInt64; era @2 :UInt16; }

struct TargetReport {
  id @0 :UInt64;
  state @1 :TargetState;
  capacity @2 :UInt64;
  used @3 :UInt64;
  available @4 :UInt64;
  chunks @5 :UInt64;
  bootCount @6 :UInt64;
}
enum TargetState { ok @0; nearFull @1; full @2; failed @3; readOnly @4; slow @5; }

# First call on a connection. Whatever the server held before this process started is out of the in-sync sets until it
# has caught up. needsOperator: this metadata server is behind `journal`.
struct RegisterRequest {
  server @0 :UInt64;
  address @1 :Text;
  labels @2 :List(Text);
  boot @3 :UInt64;             # random, of this process
  journal @4 :Common.JournalPosition;   # highest that any of its disks remembers
  targets @5 :List(TargetReport);
}
struct RegisterReply { leaseMs @0 :UInt32; heartbeatMs @1 :UInt32; era @2 :UInt16; minReplicas @3 :UInt8; }

# Sent every heartbeatMs and at once after a Poke. The lease runs from the send time. The reply carries all that changed.
struct HeartbeatRequest {
  server @0 :UInt64;
  boot @1 :UInt64;
  routingVersion @2 :UInt64;   # the table it acts on
  fences @3 :UInt64;           # ended sessions up to this sequence are refused on every target
  purges @4 :UInt64;           # purge orders up to this sequence are done on every target
  targets @5 :List(TargetReport);
  progress @6 :List(Progress); # groups that are not plain in-sync members
  foregroundMs @7 :UInt32;     # mean latency of client requests since the last heartbeat, for pacing repair
  corruptFound @8 :UInt64;
  corruptRepaired @9 :UInt64;
  unknownChunks @10 :UInt64;   # chunks kept aside that no in-sync member knows
  leftovers @11 :List(GroupOnTarget);  # groups that a target is not in and still has chunks of (some of them, if many)
  struct Progress {
    group @0 :Common.GroupId;
    target @1 :UInt64;
    epoch @2 :UInt64;
    state @3 :State;
    chunksLeft @4 :UInt64;
    bytesLeft @5 :UInt64;
    bytesCopied @6 :UInt64;
    enum State { copying @0; caughtUp @1; reconciling @2; reconciled @3; failed @4; }
  }
}
struct HeartbeatReply {
  leaseMs @0 :UInt32;
  routing @1 :Routing;
  fences @2 :UInt64;           # sequence after applying `ended`
  ended @3 :List(UInt64);      # session ids
  endedBelow @4 :UInt64;       # every session id below this has ended
  purges @5 :List(Purge);
  journal @6 :Common.JournalPosition;  # synced position: remember it on disk
  retired @7 :List(UInt64);    # targets that no group uses any more and that may be emptied by the operator
  drops @8 :List(Drop);        # leftovers that may go
}
struct GroupOnTarget { group @0 :Common.GroupId; target @1 :UInt64; }
# The target removes what it has of a group that is whole without it in exactly this epoch: those chunks that each in-sync
# member lists, synced, in this epoch. Repeated for as long as the target reports them as left over.
struct Drop { group @0 :Common.GroupId; target @1 :UInt64; epoch @2 :UInt64; }
# A data id whose chunks [0, chunks) may go: no record refers to it and no session that could write it lives.
struct Purge { sequence @0 :UInt64; data @1 :UInt64; pool @2 :UInt16; chunks @3 :UInt32; }

# Reverse call, metadata server -> chunkserver: heartbeat now, something changed.
struct PokeRequest { routingVersion @0 :UInt64; }

# --- operators ---
struct StatusReply { json @0 :Text; }            # the object of `cairn admin status --json`
struct StatusRequest { what @0 :What; enum What { status @0; servers @1; groups @2; sessions @3; } }
# acceptLoss, with forget: groups whose last good copy was on the server go on with an older copy, or empty.
struct AdminRequest { command @0 :Command; server @1 :UInt64; acceptLoss @2 :Bool; enum Command { drain @0; undrain @1; forget @2; } }
