// Between messages and plain structs, for the service only. Reading functions may throw kj::Exception
// (malformed body): call them before the first co_await, under rpc's guard.
#pragma once

#include <string>
#include <vector>

#include "meta/leases.h"
#include "meta/object_key.h"
#include "meta/ops/objects.h"
#include "meta/ops/operations.h"
#include "meta/replies.h"
#include "store/rpc/message.h"
#include "store/rpc/schema/meta.capnp.h"

namespace cairn::meta {

inline std::string text_of(capnp::Data::Reader data) {
  return std::string(rpc::text(data));
}
MutationId mutation_of(schema::Mutation::Reader from);
std::vector<InodeId> inodes_of(capnp::List<std::uint64_t>::Reader from);
Ranges ranges_of(capnp::List<schema::Range>::Reader from);
LeaseKind lease_kind_of(schema::LeaseKind from);
Digest digest_of_wire(schema::Digest::Reader from);
ObjectKey object_key_of(schema::ObjectKey::Reader from);

void fill(schema::Attr::Builder to, InodeId id, const InodeRecord& record);
void fill(schema::Layout::Builder to, const InodeRecord& record);  // nothing unless a regular file
void fill(schema::ObjectRecord::Builder to, const ops::ObjectView& object);
void fill(capnp::List<schema::Grant>::Builder to, const std::vector<Grant>& grants);

}  // namespace cairn::meta
