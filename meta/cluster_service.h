// The wire entry of the cluster side: reads requests into plain structs, calls ClusterCore, writes replies.
// Everything is read out of a message before the first await, under the guard that turns a malformed body
// into kProtocol (rpc::Service). Thread-safe.
#pragma once

#include "meta/cluster_core.h"
#include "store/rpc/connection.h"

namespace cairn::meta {

bool cluster_serves(std::uint16_t method);
// `core` outlives the task.
rpc::Task<Result<rpc::OutMessage>> handle_cluster_request(ClusterCore& core, Clock& clock,
                                                          rpc::Request request);

}  // namespace cairn::meta
