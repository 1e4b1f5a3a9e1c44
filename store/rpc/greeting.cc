// The exchange of Hello at the start of a connection: see Hello in schema/common.capnp.
#include <fmt/format.h>

#include "store/base/ids.h"
#include "store/rpc/live_connection.h"

namespace cairn::rpc {
namespace {

// Its own limit when the peer does not say one.
std::size_t window(std::uint64_t announced, std::size_t own) {
  return announced == 0 ? own : announced;
}

Result<> check_cluster(ClusterId ours, std::uint64_t theirs, const std::string& address) {
  if (!ours.valid() || theirs == 0 || ours.value() == theirs) return {};
  return fail(Code::kWrongCluster,
              fmt::format("{} belongs to cluster {}, this program to cluster {}: check the address", address,
                          hex64(theirs), to_string(ours)));
}

Role role_from(schema::Hello::Role role) {
  switch (role) {
    case schema::Hello::Role::META:
      return Role::kMeta;
    case schema::Hello::Role::CHUNKSERVER:
      return Role::kChunkserver;
    case schema::Hello::Role::CLIENT:
      break;
  }
  return Role::kClient;
}

schema::Hello::Role role_to(Role role) {
  return static_cast<schema::Hello::Role>(role);
}

struct Met {
  std::uint64_t cluster = 0;
  Role role = Role::kClient;
  std::uint64_t id = 0;
  std::string program;
  std::uint64_t requests_max = 0;
  std::uint64_t payload_max = 0;
};

Result<Met> read_hello(Frame& frame, const std::string& address) {
  if (frame.header.kind != FrameKind::kHello) return fail(Code::kProtocol, "the first frame is not a hello");
  try {
    InMessage message(std::move(frame.body), {});
    auto hello = message.body<schema::Hello>();
    if (hello.getProtocolMin() > kProtocolVersion || hello.getProtocolMax() < kProtocolVersion) {
      return fail(Code::kVersionMismatch,
                  fmt::format("{} ({}) speaks protocol {} to {}, this program {}: upgrade the older one",
                              address, hello.getProgram().cStr(), hello.getProtocolMin(),
                              hello.getProtocolMax(), kProtocolVersion));
    }
    return Met{hello.getCluster(),        role_from(hello.getRole()), hello.getId(),
               hello.getProgram().cStr(), hello.getRequestsMax(),     hello.getPayloadMax()};
  } catch (const kj::Exception& e) {
    return fail(Code::kProtocol, std::string("malformed hello: ") + e.getDescription().cStr());
  }
}

Result<Met> read_hello_reply(Frame& frame, const std::string& address) {
  if (frame.header.kind != FrameKind::kHelloReply)
    return fail(Code::kProtocol, "the first frame is not a hello reply");
  try {
    InMessage message(std::move(frame.body), {});
    if (frame.header.status != 0) {
      return fail(
          code_from_number(frame.header.status),
          fmt::format("{}: refused: {}", address, message.body<schema::Failure>().getMessage().cStr()));
    }
    auto reply = message.body<schema::HelloReply>();
    if (reply.getProtocol() != kProtocolVersion) {
      return fail(
          Code::kVersionMismatch,
          fmt::format("{} ({}) answered with protocol {}, this program speaks {}: upgrade the older one",
                      address, reply.getProgram().cStr(), reply.getProtocol(), kProtocolVersion));
    }
    return Met{reply.getCluster(),        role_from(reply.getRole()), reply.getId(),
               reply.getProgram().cStr(), reply.getRequestsMax(),     reply.getPayloadMax()};
  } catch (const kj::Exception& e) {
    return fail(Code::kProtocol, std::string("malformed hello reply: ") + e.getDescription().cStr());
  }
}

}  // namespace

Task<Result<>> LiveConnection::greet_accepting() {
  auto frame = co_await read_frame();
  if (!frame) co_return fail(std::move(frame.error()));
  auto met = read_hello(*frame, address_);
  Result<> accepted;
  if (!met) {
    accepted = fail(met.error());
  } else {
    accepted = check_cluster(identity_.cluster(), met->cluster, address_);
  }
  OutMessage reply;
  FrameHeader header{.kind = FrameKind::kHelloReply};
  if (!accepted) {
    header.status = static_cast<std::uint16_t>(accepted.error().code());
    reply.body<schema::Failure>().setMessage(accepted.error().message());
  } else {
    auto body = reply.body<schema::HelloReply>();
    body.setProtocol(kProtocolVersion);
    body.setCluster(identity_.cluster().value());
    body.setProgram(identity_.program);
    body.setRole(role_to(identity_.role));
    body.setId(identity_.id());
    body.setRequestsMax(static_cast<std::uint32_t>(limits_.requests_in_flight));
    body.setPayloadMax(limits_.payload_bytes_in_flight);
    peer_role_ = met->role;
    peer_id_ = met->id;
    peer_program_ = met->program;
    window_requests_ = window(met->requests_max, limits_.requests_in_flight);
    window_payload_ = window(met->payload_max, limits_.payload_bytes_in_flight);
  }
  {
    std::lock_guard lock(mutex_);
    queue_locked(header, &reply);
    // Calls back are allowed from here on: their frames follow the reply.
    if (accepted && !ended_) open_ = true;
  }
  if (accepted) {
    greeted_ = true;
    if (service_ != nullptr) service_->connected(shared_from_this());
  }
  flush_now();
  co_return accepted;
}

Task<Result<>> LiveConnection::greet_connecting() {
  OutMessage hello;
  auto body = hello.body<schema::Hello>();
  body.setProtocolMin(kProtocolVersion);
  body.setProtocolMax(kProtocolVersion);
  body.setCluster(identity_.cluster().value());
  body.setRole(role_to(identity_.role));
  body.setId(identity_.id());
  body.setProgram(identity_.program);
  body.setRequestsMax(static_cast<std::uint32_t>(limits_.requests_in_flight));
  body.setPayloadMax(limits_.payload_bytes_in_flight);
  {
    std::lock_guard lock(mutex_);
    queue_locked({.kind = FrameKind::kHello}, &hello);
  }
  flush_now();
  auto frame = co_await read_frame();
  if (!frame) co_return fail(std::move(frame.error()));
  auto met = read_hello_reply(*frame, address_);
  if (!met) co_return fail(std::move(met.error()));
  CO_TRYV(check_cluster(identity_.cluster(), met->cluster, address_));
  peer_role_ = met->role;
  peer_id_ = met->id;
  peer_program_ = met->program;
  window_requests_ = window(met->requests_max, limits_.requests_in_flight);
  window_payload_ = window(met->payload_max, limits_.payload_bytes_in_flight);
  greeted_ = true;
  {
    std::lock_guard lock(mutex_);
    if (!ended_) open_ = true;
  }
  if (service_ != nullptr) service_->connected(shared_from_this());
  co_return Result<>();
}

}  // namespace cairn::rpc
