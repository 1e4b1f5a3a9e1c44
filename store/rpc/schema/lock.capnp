# File locks: client <-> metadata server (docs/locks.md). They live in the server's memory, tied to a session, and are not
# journaled: after a restart each client names its own again.
@0xd1a5c0de00000005;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("cairn::schema");

enum LockKind { record @0; flock @1; }       # record: byte ranges (POSIX and OFD). The two kinds do not see each other
enum LockType { none @0; read @1; write @2; }
struct FileLock {
  inode @0 :UInt64;
  kind @1 :LockKind;
  type @2 :LockType;           # none: unlock
  owner @3 :UInt64;            # one of the session's; locks of one owner never conflict with each other
  first @4 :UInt64;
  last @5 :UInt64;             # the last byte, itself included; 2^64-1: to the end
  pid @6 :UInt32;              # of the process that asked, on its host
}
enum LockOutcome { granted @0; conflict @1; waiting @2; deadlock @3; }

# epoch: of the client's record of its locks, see NameLocks. A request of an earlier one is refused: it comes from before a
# reconnect, and is repeated by the client if it still wants it.
# ticket: not 0: wait for it; of a new number in each request. The answer `waiting` is followed by a LocksSettled.
# change: each change of the session's locks has a number, from 1 in each epoch: replies and LocksSettled may pass each other.
struct LockRequest { session @0 :UInt64; epoch @1 :UInt64; lock @2 :FileLock; ticket @3 :UInt64; }
struct LockReply { outcome @0 :LockOutcome; change @1 :UInt64; }
# removed: it will not be granted any more. Not removed: LocksSettled is on its way, or was sent already.
struct CancelLockRequest { session @0 :UInt64; epoch @1 :UInt64; ticket @2 :UInt64; }
struct CancelLockReply { removed @0 :Bool; }
# The first lock in the way of `lock`, if there is one.
struct TestLockRequest { session @0 :UInt64; lock @1 :FileLock; }
struct TestLockReply { conflict @0 :Bool; lock @1 :FileLock; session @2 :UInt64; }

# After each resumption of a session, before Reassert: all locks that it holds, in one or more messages. With the last
# Reassert they replace what the server knows of the session; what waited is forgotten (and asked for again).
struct NameLocksRequest { session @0 :UInt64; epoch @1 :UInt64; locks @2 :List(FileLock); }

# Reverse call, metadata server -> client: tickets that wait no more (granted or deadlock).
struct LocksSettledRequest {
  epoch @0 :UInt64;
  items @1 :List(Item);
  struct Item { ticket @0 :UInt64; outcome @1 :LockOutcome; change @2 :UInt64; }
}
