// ClientImpl: the parts of a client, built and shut down in order.
#pragma once

#include "client/directory_admin_impl.h"
#include "client/file_system_impl.h"
#include "client/objects_impl.h"

namespace cairn::client {

class ClientImpl final : public Client {
 public:
  // `transport` and `clock` outlive the client. Client::connect gives the real ones.
  static Result<std::unique_ptr<ClientImpl>> connect(ClientOptions options, rpc::Transport& transport,
                                                     Clock& clock);
  ~ClientImpl() override;

  Objects& objects() override { return objects_; }
  FileSystem& files() override { return files_; }
  DirectoryAdmin& directories() override { return directories_; }
  ClusterId cluster() const override { return session_.cluster(); }
  SessionId session() const override { return session_.id(); }
  const Clock& clock() const override { return clock_; }
  Result<std::string> status(std::string_view what) override;
  Result<> admin(AdminCommand command, ServerId server, Loss loss) override;
  Result<> close() override;

 private:
  ClientImpl(ClientOptions options, rpc::Transport& transport, Clock& clock);

  const ClientOptions options_;
  Clock& clock_;
  rpc::Runtime runtime_;
  Session session_;
  Routing routing_;
  ChunkIo chunks_;
  Budget transfer_memory_;
  ObjectsImpl objects_;
  FileSystemImpl files_;
  DirectoryAdminImpl directories_;
  std::atomic<bool> closed_{false};
};

}  // namespace cairn::client
