#include "client/objects.h"

#include "client/objects_impl.h"

namespace cairn::client {
namespace {

constexpr auto kWaitSlice = std::chrono::seconds(5);  // of one request that waits at the server

}  // namespace

Result<ObjectInfo> ObjectsImpl::stat(std::string_view id) {
  const Deadline deadline = Deadline::after(runtime_.clock(), options_.timeout);
  TRY(auto found, rpc::block_on(runtime_, record(std::string(id), deadline)));
  return found.info;
}

Result<Objects::Page> ObjectsImpl::list(std::string_view prefix, std::string_view after,
                                        std::uint32_t limit) {
  const Deadline deadline = Deadline::after(runtime_.clock(), options_.timeout);
  std::function<void(schema::ListObjectsRequest::Builder, std::uint64_t)> fill =
      [prefix = std::string(prefix), after = std::string(after), limit](
          schema::ListObjectsRequest::Builder body, std::uint64_t) {
        body.setPrefix(rpc::data(prefix));
        body.setAfter(rpc::data(after));
        body.setLimit(limit);
      };
  TRY(auto reply,
      rpc::block_on(runtime_, session_.query<rpc::method::ListObjects>(std::move(fill), deadline)));
  return decoded("ListObjects", [&] {
    Page page;
    for (auto record : reply->getRecords()) page.objects.push_back(decode(record).info);
    page.done = reply->getDone();
    return page;
  });
}

Result<> ObjectsImpl::remove(std::string_view id) {
  const Deadline deadline = Deadline::after(runtime_.clock(), options_.timeout);
  std::function<void(schema::DeleteObjectRequest::Builder)> fill =
      [id = std::string(id)](schema::DeleteObjectRequest::Builder body) {
        body.initKey().setId(rpc::data(id));
      };
  TRYV(rpc::block_on(runtime_, session_.mutate<rpc::method::DeleteObject>(std::move(fill), deadline)));
  return {};
}

Result<std::vector<bool>> ObjectsImpl::wait(std::span<const std::string> ids, std::size_t count,
                                            std::chrono::milliseconds timeout) {
  const Deadline until = Deadline::after(runtime_.clock(), timeout);
  if (count == 0 || count > ids.size()) count = ids.size();
  const std::vector<std::string> all(ids.begin(), ids.end());
  for (;;) {
    const Duration left = std::max<Duration>(Duration{0}, until.left(runtime_.clock()));
    const auto slice =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::min<Duration>(left, kWaitSlice));
    std::function<void(schema::GetObjectsRequest::Builder, std::uint64_t)> fill =
        [&all, count, slice](schema::GetObjectsRequest::Builder body, std::uint64_t session) {
          body.setSession(session);
          auto keys = body.initKeys(static_cast<unsigned>(all.size()));
          for (unsigned i = 0; i < all.size(); ++i) keys[i].setId(rpc::data(all[i]));
          body.setWaitMs(static_cast<std::uint32_t>(slice.count()));
          body.setWaitCount(static_cast<std::uint32_t>(count));
        };
    const Deadline one = Deadline::after(runtime_.clock(), slice + options_.timeout);
    TRY(auto reply, rpc::block_on(runtime_, session_.query<rpc::method::GetObjects>(std::move(fill), one)));
    TRY(auto sealed, decoded("GetObjects", [&] {
          std::vector<bool> out;
          for (auto item : reply->getResults()) out.push_back(code_from_number(item.getCode()) == Code::kOk);
          return out;
        }));
    const auto have = static_cast<std::size_t>(std::count(sealed.begin(), sealed.end(), true));
    if (have >= count) return sealed;
    if (until.passed(runtime_.clock())) {
      return fail(Code::kTimeout,
                  std::to_string(have) + " of " + std::to_string(count) + " objects are sealed");
    }
  }
}

}  // namespace cairn::client
