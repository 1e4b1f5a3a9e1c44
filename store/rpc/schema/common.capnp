# Types shared by all protocols. Comments in these files are the protocol's specification.
# Evolution: members are only appended; a retired member is renamed obsoleteX. Unknown members are ignored by an
# older program. What changes behaviour is sent only at or above a feature level that the operator raised.
@0xd1a5c0de00000001;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("cairn::schema");

struct ChunkId { data @0 :UInt64; index @1 :UInt32; shard @2 :UInt16; }
struct Version { epoch @0 :UInt64; counter @1 :UInt64; }
struct GroupId { pool @0 :UInt16; slot @1 :UInt32; }
struct Digest { high @0 :UInt64; low @1 :UInt64; }
struct JournalPosition { era @0 :UInt16; term @1 :UInt64; index @2 :UInt64; }

# First message of each direction on every connection. A peer of another cluster, or without a protocol version in
# common, gets an error reply (wrongCluster, versionMismatch) and the connection is closed.
struct Hello {
  protocolMin @0 :UInt16;
  protocolMax @1 :UInt16;
  cluster @2 :UInt64;      # 0: not known yet (a client's first contact, a server that wants to join)
  role @3 :Role;
  id @4 :UInt64;           # server id or session id; 0: none yet
  program @5 :Text;        # "cairn-chunkserver 0.1.0 host pid", for logs
  requestsMax @6 :UInt32;  # requests without reply, and bytes of their payloads, that the sender of this message
  payloadMax @7 :UInt64;   # takes at once on this connection; the other side holds further ones back. 0: its own limits
  enum Role { client @0; meta @1; chunkserver @2; }
}
struct HelloReply {
  protocol @0 :UInt16;     # the version both will speak
  cluster @1 :UInt64;
  program @2 :Text;
  role @3 :Hello.Role;     # as in Hello
  id @4 :UInt64;
  requestsMax @5 :UInt32;
  payloadMax @6 :UInt64;
}

# Body of a reply with a status other than ok.
struct Failure { message @0 :Text; detail @1 :Data; }

struct Empty {}
