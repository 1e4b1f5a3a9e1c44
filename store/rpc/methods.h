// Every request: its number on the wire (never reused), its body and the body of its reply.
#pragma once

#include <cstdint>
#include <string_view>

#include "store/rpc/schema/chunk.capnp.h"
#include "store/rpc/schema/cluster.capnp.h"
#include "store/rpc/schema/common.capnp.h"
#include "store/rpc/schema/lock.capnp.h"
#include "store/rpc/schema/meta.capnp.h"

namespace cairn::rpc {

#define CAIRN_METHODS(X)                                      \
  /* client -> meta */                                        \
  X(OpenSession, 1, OpenSessionRequest, OpenSessionReply)     \
  X(KeepAlive, 2, KeepAliveRequest, KeepAliveReply)           \
  X(CloseSession, 3, CloseSessionRequest, Empty)              \
  X(Reassert, 4, ReassertRequest, Empty)                      \
  X(ReturnLeases, 5, ReturnLeasesRequest, Empty)              \
  X(GetRouting, 6, RoutingRequest, Routing)                   \
  X(Lookup, 10, LookupRequest, LookupReply)                   \
  X(GetAttr, 11, GetAttrRequest, AttrReply)                   \
  X(SetAttr, 12, SetAttrRequest, SetAttrReply)                \
  X(Make, 13, MakeRequest, MakeReply)                         \
  X(Open, 14, OpenRequest, OpenReply)                         \
  X(Report, 15, ReportRequest, ReportReply)                   \
  X(ExtendBound, 16, ExtendBoundRequest, ExtendBoundReply)    \
  X(Remove, 17, RemoveRequest, DirsReply)                     \
  X(Rename, 18, RenameRequest, DirsReply)                     \
  X(Link, 19, LinkRequest, AttrReply)                         \
  X(ReadLink, 20, InodeRequest, ReadLinkReply)                \
  X(ReadDir, 21, ReadDirRequest, ReadDirReply)                \
  X(GetXattr, 22, GetXattrRequest, GetXattrReply)             \
  X(SetXattr, 23, SetXattrRequest, Empty)                     \
  X(ListXattr, 24, InodeRequest, ListXattrReply)              \
  X(RemoveXattr, 25, RemoveXattrRequest, Empty)               \
  X(StatFs, 26, StatFsRequest, StatFsReply)                   \
  X(SyncMeta, 27, SyncMetaRequest, Empty)                     \
  X(ShareChunks, 28, ShareChunksRequest, ShareChunksReply)    \
  X(Lock, 30, LockRequest, LockReply)                         \
  X(CancelLock, 31, CancelLockRequest, CancelLockReply)       \
  X(TestLock, 32, TestLockRequest, TestLockReply)             \
  X(NameLocks, 33, NameLocksRequest, Empty)                   \
  X(SetQuota, 34, SetQuotaRequest, Empty)                     \
  X(GetQuotas, 35, GetQuotasRequest, GetQuotasReply)          \
  X(SetRetention, 36, SetRetentionRequest, Empty)             \
  X(GetRetention, 37, InodeRequest, GetRetentionReply)        \
  X(ListTrash, 38, ListTrashRequest, ListTrashReply)          \
  X(Undelete, 39, UndeleteRequest, AttrReply)                 \
  X(CreateObject, 40, CreateObjectRequest, CreateObjectReply) \
  X(Seal, 41, SealRequest, SealReply)                         \
  X(AbortObject, 42, AbortObjectRequest, Empty)               \
  X(GetObjects, 43, GetObjectsRequest, GetObjectsReply)       \
  X(ListObjects, 44, ListObjectsRequest, ListObjectsReply)    \
  X(DeleteObject, 45, DeleteObjectRequest, Empty)             \
  X(EmptyTrash, 46, EmptyTrashRequest, EmptyTrashReply)       \
  X(Reclaim, 47, ReclaimRequest, ReclaimReply)                \
  /* anyone -> meta */                                        \
  X(Status, 60, StatusRequest, StatusReply)                   \
  X(Admin, 61, AdminRequest, Empty)                           \
  /* chunkserver -> meta */                                   \
  X(Join, 70, JoinRequest, JoinReply)                         \
  X(Register, 71, RegisterRequest, RegisterReply)             \
  X(Heartbeat, 72, HeartbeatRequest, HeartbeatReply)          \
  /* reverse calls: meta -> client, meta -> chunkserver */    \
  X(Recall, 80, RecallRequest, Empty)                         \
  X(Poke, 81, PokeRequest, Empty)                             \
  X(LocksSettled, 82, LocksSettledRequest, Empty)             \
  /* client -> chunkserver */                                 \
  X(Write, 100, WriteRequest, WriteReply)                     \
  X(Read, 101, ReadRequest, ReadReply)                        \
  X(Sync, 102, SyncRequest, SyncReply)                        \
  X(ChunkserverStatus, 103, Empty, ChunkserverStatusReply)    \
  /* chunkserver -> chunkserver */                            \
  X(Forward, 120, WriteRequest, WriteReply)                   \
  X(ListChunks, 121, ListChunksRequest, ListChunksReply)      \
  X(Fetch, 122, FetchRequest, FetchReply)                     \
  X(Reversion, 123, ReversionRequest, WriteReply)             \
  X(RolledForward, 124, RolledForwardRequest, Empty)

#define CAIRN_METHOD_TYPE(name, number, request, reply) \
  struct name {                                         \
    using Request = schema::request;                    \
    using ReplyBody = schema::reply;                    \
    static constexpr std::uint16_t kNumber = number;    \
    static constexpr std::string_view kName = #name;    \
  };
namespace method {
CAIRN_METHODS(CAIRN_METHOD_TYPE)
}
#undef CAIRN_METHOD_TYPE

inline std::string_view method_name(std::uint16_t number) {
  switch (number) {
#define CAIRN_METHOD_NAME(name, number, request, reply) \
  case number:                                          \
    return #name;
    CAIRN_METHODS(CAIRN_METHOD_NAME)
#undef CAIRN_METHOD_NAME
  }
  return "unknown";
}

}  // namespace cairn::rpc
