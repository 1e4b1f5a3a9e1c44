// Templates of client/file_system.h.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <utility>

#include "client/file_system.h"

namespace cairn {

template <class T>
void FileSystem::spawn(Task<T> task, std::function<void(Result<T>)> done) {
  boost::asio::co_spawn(runtime().inline_executor(), std::move(task),
                        [done = std::move(done)](std::exception_ptr problem, Result<T> result) {
                          if (problem) {
                            try {
                              std::rethrow_exception(problem);
                            } catch (const std::exception& e) {
                              result = fail(Code::kInternal, e.what());
                            } catch (...) {
                              result = fail(Code::kInternal, "an unknown exception ended the call");
                            }
                          }
                          done(std::move(result));
                        });
}

template <class T>
Result<T> FileSystem::block_on(Task<T> task) {
  return rpc::block_on(runtime(), std::move(task));
}

}  // namespace cairn
