// The namespace side over the wire: retries, leases, recalls, fences, restarts, objects.
#include "meta/service.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

#include "meta/service_testing.h"
#include "store/base/log.h"

namespace cairn::meta {
namespace {

using namespace std::chrono_literals;
using schema::LeaseKind;
using testing::Running;
using testing::TestClient;
using testing::TestServer;

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() : runtime_(clock_, 2, "test") {
    log_set_level(LogLevel::kError);
    start({}, "boot");
  }
  ~ServiceTest() override {
    a.reset();
    b.reset();
    server.reset();
    runtime_.stop();
  }
  void start(const MapKvStore::Content& content, const std::string& boot) {
    server.reset();
    server = std::make_unique<TestServer>(runtime_, clock_, transport_, content, boot, limits);
  }
  std::unique_ptr<TestClient> client() {
    auto made = std::make_unique<TestClient>(runtime_, clock_, transport_);
    made->open_session();
    return made;
  }
  template <class M, class Fill>
  auto start_mutation(TestClient& from, Fill fill) {
    return Running<Result<rpc::Reply<typename M::ReplyBody>>>(runtime_,
                                                              from.mutate_async<M>(std::move(fill)));
  }
  Running<Result<rpc::Reply<schema::SetAttrReply>>> start_chmod(TestClient& from, std::uint64_t inode) {
    return start_mutation<rpc::method::SetAttr>(
        from, [inode](schema::SetAttrRequest::Builder body) { TestClient::fill_chmod(body, inode, 0600); });
  }
  // Waits, in real time, for something that other threads bring about.
  template <class Condition>
  void eventually(Condition condition) {
    for (int i = 0; i < 20'000 && !condition(); ++i) std::this_thread::sleep_for(1ms);
    ASSERT_TRUE(condition());
  }
  // Lets everything that is under way come to rest: one round trip through the executor.
  void settle() {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(rpc::block_on(runtime_, server->executor().sync()));
  }

  testing::TestClock clock_;
  rpc::MemoryTransport transport_;
  rpc::Runtime runtime_;
  testing::TestLimits limits;
  std::unique_ptr<TestServer> server;
  std::unique_ptr<TestClient> a, b;
};

TEST_F(ServiceTest, RetryIsAnsweredNotDone) {
  a = client();
  const auto first = a->make("f", S_IFREG | 0644, true, 1, 100);
  ASSERT_TRUE(first) << first.error().to_string();
  const auto again = a->make("f", S_IFREG | 0644, true, 1, 100);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->inode, first->inode);
  EXPECT_EQ(again->generation, first->generation);
  EXPECT_TRUE(again->created);
  EXPECT_EQ(a->make("f", S_IFREG | 0644, true, 1, 101).error().code(), Code::kExists);
  // Also after a restart; and what the client does not wait for any more is never done again.
  start(server->kill(), "boot");
  ASSERT_TRUE(a->open_session(a->session));
  ASSERT_EQ(a->reassert({first->inode}, {}, {first->inode}), Code::kOk);
  EXPECT_EQ(a->make("f", S_IFREG | 0644, true, 1, 100)->inode, first->inode);
  a->awaited = 101;
  ASSERT_TRUE(a->make("g", S_IFREG | 0644, false, 1, 102));
  EXPECT_EQ(a->make("h", S_IFREG | 0644, false, 1, 100).error().code(), Code::kInvalidArgument);
}

TEST_F(ServiceTest, AFullFileSystemRefusesWhatNeedsSpaceAndServesTheRest) {
  a = client();
  const auto first = a->make("f", S_IFREG | 0644, true, 1, 100);
  ASSERT_TRUE(first);
  server->kv.set_full(true);
  EXPECT_EQ(a->make("g").error().code(), Code::kNoSpace);
  EXPECT_EQ(start_chmod(*a, first->inode).get().error().code(), Code::kNoSpace);
  // What was done before is still answered, files can be read and written back, and room can be made.
  EXPECT_EQ(a->make("f", S_IFREG | 0644, true, 1, 100)->inode, first->inode);
  EXPECT_EQ((*a->lookup("f"))->getAttr().getInode(), first->inode);
  EXPECT_EQ(a->report(first->inode, first->generation, 4000), Code::kOk);
  EXPECT_TRUE(a->mutate<rpc::method::Remove>([](schema::RemoveRequest::Builder body) {
    body.setParent(1);
    body.setName(rpc::data("f"));
  }));
  server->kv.set_full(false);
  EXPECT_TRUE(a->make("g"));
}

TEST_F(ServiceTest, TheListOfSessionsIsAPage) {
  a = client();
  b = client();
  auto page = a->call<rpc::method::Status>(
      [](schema::StatusRequest::Builder body) { body.setWhat(schema::StatusRequest::What::SESSIONS); });
  ASSERT_TRUE(page) << page.error().to_string();
  const std::string json = (*page)->getJson().cStr();
  for (const auto* who : {a.get(), b.get()})
    EXPECT_NE(json.find("\"id\":\"" + to_string(who->session) + "\""), std::string::npos) << json;
  EXPECT_NE(json.find("\"state\":\"alive\""), std::string::npos) << json;
}

TEST_F(ServiceTest, MissingNameGrantsTheDirectory) {
  a = client();
  auto reply = a->lookup("nothing");
  ASSERT_TRUE(reply);
  EXPECT_EQ((*reply)->getAttr().getInode(), 0u);
  ASSERT_EQ((*reply)->getGrants().size(), 1u);
  EXPECT_EQ((*reply)->getGrants()[0].getInode(), 1u);
  EXPECT_EQ((*reply)->getGrants()[0].getKind(), LeaseKind::SHARED);
}

TEST_F(ServiceTest, ReaderMakesTheWriterReport) {
  a = client();
  b = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  ASSERT_TRUE(made);
  a->on_recall = [&](TestClient::Recalled item) -> rpc::Task<Result<>> {
    EXPECT_EQ(item.inode, made->inode);
    EXPECT_EQ(item.keep, LeaseKind::SHARED);
    EXPECT_EQ(item.generation, made->generation);
    auto reported = co_await a->mutate_async<rpc::method::Report>([&](schema::ReportRequest::Builder body) {
      TestClient::fill_report(body, made->inode, made->generation, 3000, LeaseKind::SHARED, 0);
    });
    if (!reported) co_return std::unexpected(reported.error());
    co_return Result<>{};
  };
  auto seen = b->lookup("f");
  ASSERT_TRUE(seen) << seen.error().to_string();
  EXPECT_EQ((*seen)->getAttr().getSize(), 3000u);
  EXPECT_EQ((*seen)->getGrants().size(), 2u);
  EXPECT_EQ(a->recalled().size(), 1u);
  EXPECT_EQ(a->report(made->inode, made->generation, 4000), Code::kLeaseLost);
}

TEST_F(ServiceTest, ChangesRecallWhatOthersCache) {
  a = client();
  b = client();
  const auto made = a->make("f");
  ASSERT_TRUE(b->lookup("f"));  // holds root and f
  EXPECT_EQ(a->chmod(made->inode, 0600), Code::kOk);
  ASSERT_EQ(b->recalled().size(), 1u);
  EXPECT_EQ(b->recalled()[0].inode, made->inode);
  EXPECT_EQ(b->recalled()[0].keep, LeaseKind::NONE);
  ASSERT_TRUE(a->make("g"));  // changes the entries of root
  ASSERT_EQ(b->recalled().size(), 2u);
  EXPECT_EQ(b->recalled()[1].inode, 1u);
  ASSERT_TRUE(a->make("h"));  // nobody else holds it now
  EXPECT_EQ(b->recalled().size(), 2u);
  EXPECT_TRUE(a->recalled().empty());  // own leases stay
}

// An answer that tells of an exclusive lease could arrive after the report that gives it back.
TEST_F(ServiceTest, ALookupTellsOfNoExclusiveLease) {
  a = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  auto seen = a->lookup("f");
  ASSERT_TRUE(seen);
  for (const auto grant : (*seen)->getGrants()) EXPECT_EQ(grant.getKind(), LeaseKind::SHARED);
  EXPECT_EQ(a->report(made->inode, made->generation, 10), Code::kOk) << "and it is held as before";
}

TEST_F(ServiceTest, ReaderIsNotGrantedWhatAWriterWaitsFor) {
  a = client();
  b = client();
  auto c = client();
  const auto made = a->make("f");
  ASSERT_TRUE(b->lookup("f"));
  b->answer().reset();
  auto change = start_chmod(*a, made->inode);
  eventually([&] { return !b->recalled().empty(); });
  auto seen = c->lookup("f");  // not delayed, but may not be cached
  ASSERT_TRUE(seen);
  for (const auto grant : (*seen)->getGrants()) EXPECT_NE(grant.getInode(), made->inode);
  b->answer().set();
  EXPECT_TRUE(change.get());
  EXPECT_TRUE(c->recalled().empty());
}

// Found by writers on three hosts, who stalled until one was fenced: a recall that was answered for a lease
// of before was not sent again for the one that the session got while it was on its way.
TEST_F(ServiceTest, ALeaseGrantedWhileAnEarlierOneIsRecalledIsRecalledToo) {
  a = client();
  b = client();
  const auto made = a->make("f");
  ASSERT_TRUE(a->lookup("f"));
  ASSERT_TRUE(b->lookup("f"));  // both share it
  const auto open_for_writing = [&](TestClient& who) {
    return start_mutation<rpc::method::Open>(who, [inode = made->inode](schema::OpenRequest::Builder body) {
      body.setInode(inode);
      body.setWrite(true);
    });
  };
  a->answer().reset();
  b->answer().reset();
  auto first = open_for_writing(*b);
  eventually([&] { return a->recalled().size() == 1; });
  auto second = open_for_writing(*a);
  eventually([&] { return b->recalled().size() == 1; });
  a->answer().set();
  ASSERT_TRUE(first.get());
  EXPECT_FALSE(second.done());
  b->answer().set();
  ASSERT_TRUE(second.get());
  ASSERT_EQ(b->recalled().size(), 2u);
  EXPECT_GT(b->recalled()[1].generation, b->recalled()[0].generation);
}

// Found by truncations on two hosts: to give the file back its holder had to end its truncation, which waited
// for the one that waited for the file.
TEST_F(ServiceTest, WhoHoldsAFileDoesNotWaitForThoseWhoWaitForIt) {
  a = client();
  b = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  a->answer().reset();
  auto waits = start_chmod(*b, made->inode);
  eventually([&] { return !a->recalled().empty(); });
  auto own = start_chmod(*a, made->inode);
  EXPECT_TRUE(own.get());
  // An open does not tell of the lease again: its answer may arrive when the recall was answered.
  auto again = a->mutate<rpc::method::Open>([&](schema::OpenRequest::Builder body) {
    body.setInode(made->inode);
    body.setWrite(true);
  });
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ((*again)->getGrants().size(), 0u);
  EXPECT_FALSE(waits.done());
  a->answer().set();
  EXPECT_TRUE(waits.get());
}

TEST_F(ServiceTest, SilentClientIsFencedAndItsTailTrimmed) {
  a = client();
  b = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  ASSERT_EQ(a->report(made->inode, made->generation, 1000), Code::kOk);
  a->answer().reset();
  server->cluster.gate().reset();
  auto change = start_chmod(*b, made->inode);
  eventually([&] { return !a->recalled().empty(); });
  clock_.advance(11s);
  EXPECT_EQ(b->keep_alive(), Code::kOk);  // counts from when it was received
  server->keeper->tick();
  eventually([&] { return !server->cluster.fenced().empty(); });
  EXPECT_EQ(server->cluster.fenced(), std::vector<SessionId>{a->session});
  EXPECT_EQ(a->keep_alive(), Code::kSessionEnded);
  EXPECT_EQ(a->report(made->inode, made->generation, 2000), Code::kSessionEnded);
  settle();
  EXPECT_FALSE(change.done());  // chunkservers have not confirmed
  server->cluster.gate().set();
  auto changed = change.get();
  ASSERT_TRUE(changed) << changed.error().to_string();
  EXPECT_EQ((*changed)->getAttr().getSize(), 1000u);
  EXPECT_EQ((*changed)->getLayout().getTrim().getFrom(), 1000u);
  EXPECT_EQ((*changed)->getLayout().getTrim().getTo(), 4096u);
  eventually([&] { return server->cluster.ended_below() == b->session; });
}

TEST_F(ServiceTest, LivingClientThatDoesNotGiveBackIsFencedAfterAMinute) {
  a = client();
  b = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  const auto cached = b->make("g");
  ASSERT_TRUE(a->lookup("g"));
  a->answer().reset();
  auto change = start_chmod(*b, made->inode);
  eventually([&] { return !a->recalled().empty(); });
  for (int i = 0; i < 7; ++i) {
    clock_.advance(9s);
    if (a->keep_alive() != Code::kOk) break;
    EXPECT_EQ(b->keep_alive(), Code::kOk);
    server->keeper->tick();
    settle();
  }
  eventually([&] { return !server->cluster.fenced().empty(); });
  // The fence stops what it writes. What it cached it may serve, until it hears of its end or its lease is
  // over.
  auto shared = start_chmod(*b, cached->inode);
  auto exclusive = start_chmod(*b, made->inode);
  settle();
  EXPECT_FALSE(shared.done());
  EXPECT_FALSE(exclusive.done());
  clock_.advance(11s);
  EXPECT_TRUE(shared.get());
  EXPECT_TRUE(exclusive.get());
  (void)change.get();  // its own deadline passed somewhere on the way: either outcome is right
}

TEST_F(ServiceTest, RestartWaitsForThoseWhoHeldLeases) {
  a = client();
  b = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  const auto other = a->make("other", S_IFREG | 0644, true);
  ASSERT_TRUE(b->lookup("g"));  // holds root
  start(server->kill(), "boot");
  EXPECT_TRUE(b->open_session(b->session));
  EXPECT_EQ(b->reassert({}, {1}, {}), Code::kOk);
  auto change = start_chmod(*b, made->inode);
  auto read = b->lookup("g");  // nothing in its way
  ASSERT_TRUE(read);
  EXPECT_FALSE(change.done());
  EXPECT_TRUE(a->open_session(a->session));
  a->answer().reset();
  ASSERT_EQ(a->reassert({made->inode}, {}, {made->inode}), Code::kOk);
  eventually([&] { return !a->recalled().empty(); });
  EXPECT_EQ(a->report(made->inode, made->generation, 777), Code::kOk);         // still its own
  EXPECT_EQ(a->report(other->inode, other->generation, 5), Code::kLeaseLost);  // not named: released
  a->answer().set();
  auto changed = change.get();
  ASSERT_TRUE(changed) << changed.error().to_string();
  EXPECT_EQ((*changed)->getAttr().getSize(), 777u);
  EXPECT_EQ((*changed)->getLayout().getTrim().getTo(), 0u);  // given back in order: nothing to trim
  // What b named is known again.
  ASSERT_TRUE(a->make("h"));
  EXPECT_EQ(b->recalled().back().inode, 1u);
}

TEST_F(ServiceTest, RestartEndsThoseWhoDoNotComeBackAndCollectsOrphans) {
  a = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  auto removed = a->mutate<rpc::method::Remove>([](schema::RemoveRequest::Builder body) {
    body.setParent(1);
    body.setName(rpc::data("f"));
  });
  ASSERT_TRUE(removed);
  EXPECT_TRUE(server->cluster.purges().empty());  // a has it open
  start(server->kill(), "boot");
  b = client();
  auto change = start_chmod(*b, 1);
  settle();
  EXPECT_FALSE(change.done());
  clock_.advance(11s);
  EXPECT_EQ(b->keep_alive(), Code::kOk);
  server->keeper->tick();
  auto changed = change.get();
  EXPECT_TRUE(changed) << changed.error().to_string();
  eventually([&] { return server->cluster.purges().size() == 1; });
  EXPECT_FALSE(a->open_session(a->session));
  auto gone = b->call<rpc::method::GetAttr>(
      [&](schema::GetAttrRequest::Builder body) { body.setInode(made->inode); });
  EXPECT_EQ(gone.error().code(), Code::kNotFound);
}

TEST_F(ServiceTest, PowerCutRaisesTheEraAndEndsAllSessions) {
  a = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  ASSERT_TRUE(a->call<rpc::method::SyncMeta>(
      [&](schema::SyncMetaRequest::Builder body) { body.setSession(a->session.value()); }));
  ASSERT_TRUE(a->make("lost"));
  const Era before = server->era();
  start(server->power_cut(), "another boot");
  EXPECT_EQ(server->era().value(), before.value() + 1);
  clock_.advance(11s);  // until then its client may believe in the lease
  EXPECT_FALSE(a->open_session(a->session));
  EXPECT_EQ(a->session.value() >> kEraShift, server->era().value());
  auto found = a->lookup("f");
  ASSERT_TRUE(found);
  EXPECT_EQ((*found)->getAttr().getInode(), made->inode);
}

TEST_F(ServiceTest, SecondStartOnTheSameBootKeepsTheEra) {
  const Era before = server->era();
  start(server->kill(), "boot");
  EXPECT_EQ(server->era(), before);
}

TEST_F(ServiceTest, UnlinkedOpenFileGoesWithTheSession) {
  a = client();
  b = client();
  ASSERT_TRUE(a->make("f", S_IFREG | 0644, true));
  auto removed = b->mutate<rpc::method::Remove>([](schema::RemoveRequest::Builder body) {
    body.setParent(1);
    body.setName(rpc::data("f"));
  });
  ASSERT_TRUE(removed);
  EXPECT_TRUE(server->cluster.purges().empty());
  ASSERT_TRUE(a->call<rpc::method::CloseSession>(
      [&](schema::CloseSessionRequest::Builder body) { body.setSession(a->session.value()); }));
  eventually([&] { return server->cluster.purges().size() == 1; });
}

// Found by two mounts: a reader that had looked up a name which another host then replaced by rename could
// not open what it had found.
TEST_F(ServiceTest, ReplacedFileCanBeOpenedForAMoment) {
  a = client();
  b = client();
  const auto old = a->make("f");
  ASSERT_TRUE(old && a->make("g") && a->make("h"));
  const auto rename = [&](const char* from) {
    return a->mutate<rpc::method::Rename>([&](schema::RenameRequest::Builder body) {
      body.setParent(1);
      body.setName(rpc::data(from));
      body.setNewParent(1);
      body.setNewName(rpc::data("f"));
    });
  };
  const auto open = [&](std::uint64_t inode) {
    return b->mutate<rpc::method::Open>([&](schema::OpenRequest::Builder body) { body.setInode(inode); });
  };
  ASSERT_TRUE(b->lookup("f"));
  const auto second = b->lookup("g");
  ASSERT_TRUE(second);
  const std::uint64_t unread = (*second)->getAttr().getInode();
  ASSERT_TRUE(rename("g"));
  ASSERT_TRUE(open(old->inode));
  ASSERT_TRUE(rename("h"));
  clock_.advance(3s);
  EXPECT_EQ(a->keep_alive(), Code::kOk);
  EXPECT_EQ(b->keep_alive(), Code::kOk);
  server->keeper->tick();
  const auto exists = [&](std::uint64_t inode) {
    return b->call<rpc::method::GetAttr>([&](schema::GetAttrRequest::Builder body) { body.setInode(inode); })
        .has_value();
  };
  eventually([&] { return !exists(unread); });
  EXPECT_TRUE(exists(old->inode)) << "it is open";
  ASSERT_TRUE(b->call<rpc::method::CloseSession>(
      [&](schema::CloseSessionRequest::Builder body) { body.setSession(b->session.value()); }));
  b = client();
  eventually([&] { return !exists(old->inode); });
}

TEST_F(ServiceTest, LeasesOfASessionAreBounded) {
  limits.leases_per_session = 20;
  start({}, "boot");
  a = client();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(a->make("f" + std::to_string(i)));
  auto seen = a->lookup("f39");
  ASSERT_TRUE(seen);
  EXPECT_EQ((*seen)->getGrants().size(), 0u);
}

TEST_F(ServiceTest, CountsAreCheap) {
  a = client();
  ASSERT_TRUE(a->make("f"));
  ASSERT_TRUE(a->make("d", S_IFDIR | 0755));
  EXPECT_EQ(server->counters.files, 1u);
}

// Two clients change the same two directories and files in opposite orders, a third one reads them: everybody
// makes progress, however the leases move.
TEST_F(ServiceTest, ContendersMakeProgress) {
  a = client();
  b = client();
  auto c = client();
  const auto d1 = a->make("d1", S_IFDIR | 0755)->inode;
  const auto d2 = a->make("d2", S_IFDIR | 0755)->inode;
  ASSERT_TRUE(a->make("x", S_IFREG | 0644, false, d1));
  ASSERT_TRUE(a->make("y", S_IFREG | 0644, false, d2));
  const auto exchange = [&](TestClient& who, std::uint64_t from, std::uint64_t to, const char* name,
                            const char* other) {
    for (int i = 0; i < 60; ++i) {
      auto done = who.mutate<rpc::method::Rename>([&](schema::RenameRequest::Builder body) {
        body.setParent(from);
        body.setName(rpc::data(name));
        body.setNewParent(to);
        body.setNewName(rpc::data(other));
        body.setFlags(2);
      });
      ASSERT_TRUE(done) << done.error().to_string();
    }
  };
  std::thread one([&] { exchange(*a, d1, d2, "x", "y"); });
  std::thread two([&] { exchange(*b, d2, d1, "y", "x"); });
  std::thread three([&] {
    for (int i = 0; i < 200; ++i) {
      auto x = c->lookup("x", d1);
      auto y = c->lookup("y", d2);
      ASSERT_TRUE(x && y);
      ASSERT_NE((*x)->getAttr().getInode(), 0u);
      ASSERT_NE((*y)->getAttr().getInode(), 0u);
    }
  });
  one.join();
  two.join();
  three.join();
}

// --- objects ---

class ObjectServiceTest : public ServiceTest {
 protected:
  std::uint64_t create(TestClient& who, const std::string& id) {
    auto reply = who.mutate<rpc::method::CreateObject>(
        [&](schema::CreateObjectRequest::Builder body) { body.initKey().setId(rpc::data(id)); });
    return (*reply)->getData();
  }
  Result<rpc::Reply<schema::SealReply>> seal(TestClient& who, const std::string& id, std::uint64_t data,
                                             std::uint64_t digest) {
    return who.mutate<rpc::method::Seal>([&](schema::SealRequest::Builder body) {
      body.initKey().setId(rpc::data(id));
      body.setData(data);
      body.setSize(10);
      body.initDigest().setLow(digest);
      body.initReceipts(1);
    });
  }
  auto get(TestClient& who, std::vector<std::string> ids, std::uint32_t wait_ms, std::uint32_t count) {
    return Running<Result<rpc::Reply<schema::GetObjectsReply>>>(
        runtime_, who.call_async<rpc::method::GetObjects>([=, &who](schema::GetObjectsRequest::Builder body) {
          body.setSession(who.session.value());
          auto keys = body.initKeys(static_cast<unsigned>(ids.size()));
          for (unsigned i = 0; i < ids.size(); ++i) keys[i].setId(rpc::data(ids[i]));
          body.setWaitMs(wait_ms);
          body.setWaitCount(count);
        }));
  }
};

TEST_F(ObjectServiceTest, WaitersAreWokenBySeals) {
  a = client();
  b = client();
  auto one = get(*b, {"x", "y"}, 15'000, 1);
  auto both = get(*b, {"x", "y"}, 15'000, 0);
  settle();
  ASSERT_TRUE(seal(*a, "x", create(*a, "x"), 1));
  auto first = one.get();
  ASSERT_TRUE(first);
  EXPECT_EQ((*first)->getResults()[0].getCode(), 0u);
  EXPECT_EQ(code_from_number((*first)->getResults()[1].getCode()), Code::kNotFound);
  EXPECT_FALSE(both.done());
  ASSERT_TRUE(seal(*a, "y", create(*a, "y"), 1));
  EXPECT_EQ((*both.get())->getResults()[1].getCode(), 0u);
}

TEST_F(ObjectServiceTest, WaitEndsWithItsTime) {
  a = client();
  auto waiting = get(*a, {"x"}, 5000, 1);
  settle();
  EXPECT_FALSE(waiting.done());
  clock_.advance(6s);
  auto reply = waiting.get();
  ASSERT_TRUE(reply) << reply.error().to_string();
  EXPECT_EQ(code_from_number((*reply)->getResults()[0].getCode()), Code::kNotFound);
}

TEST_F(ObjectServiceTest, ConflictIsCollectedAtOnce) {
  a = client();
  ASSERT_TRUE(seal(*a, "x", create(*a, "x"), 1));
  const std::uint64_t loser = create(*a, "x");
  EXPECT_EQ(seal(*a, "x", loser, 2).error().code(), Code::kConflict);
  eventually([&] { return server->cluster.purges().size() == 1; });
  EXPECT_EQ(server->cluster.purges()[0].data.value(), loser);
}

TEST_F(ObjectServiceTest, UnsealedObjectOfADeadWriterDisappears) {
  a = client();
  b = client();
  create(*a, "x");
  clock_.advance(11s);
  EXPECT_EQ(b->keep_alive(), Code::kOk);
  server->keeper->tick();
  eventually([&] { return server->cluster.purges().size() == 1; });
  auto reply = get(*b, {"x"}, 0, 0).get();
  ASSERT_TRUE(reply);
  EXPECT_EQ(code_from_number((*reply)->getResults()[0].getCode()), Code::kNotFound);
}

TEST_F(ObjectServiceTest, SealedSurvivesAPowerCut) {
  a = client();
  ASSERT_TRUE(seal(*a, "x", create(*a, "x"), 1));
  start(server->power_cut(), "another boot");
  a->open_session(a->session);
  auto reply = get(*a, {"x"}, 0, 0).get();
  ASSERT_TRUE(reply);
  EXPECT_EQ((*reply)->getResults()[0].getCode(), 0u);
}

TEST_F(ServiceTest, ADeletedFileOutlivesAKillAndComesBackFromItsHolder) {
  limits.retention = 1h;
  start({}, "boot");
  a = client();
  const auto made = a->make("f", S_IFREG | 0644, true);
  ASSERT_TRUE(made);
  ASSERT_EQ(a->report(made->inode, made->generation, 4000), Code::kOk);
  const auto removed = a->mutate<rpc::method::Remove>([](schema::RemoveRequest::Builder body) {
    body.setParent(1);
    body.setName(rpc::data("f"));
    body.setUid(7);
  });
  ASSERT_TRUE(removed);
  EXPECT_TRUE((*removed)->getKept());
  start(server->kill(), "boot");
  ASSERT_TRUE(a->open_session(a->session));
  ASSERT_EQ(a->reassert({made->inode}, {}, {made->inode}), Code::kOk);
  b = client();
  const auto listed = b->call<rpc::method::ListTrash>([&](schema::ListTrashRequest::Builder body) {
    body.setSession(b->session.value());
    body.setParent(1);
    body.setName(rpc::data("f"));
    body.setLimit(10);
  });
  ASSERT_TRUE(listed) << listed.error().to_string();
  ASSERT_EQ((*listed)->getItems().size(), 1u);
  const auto entry = (*listed)->getItems()[0];
  EXPECT_EQ(entry.getInode(), made->inode);
  EXPECT_EQ(entry.getAttr().getSize(), 4000u);
  EXPECT_EQ(entry.getBy(), 7u);
  EXPECT_EQ(rpc::text(entry.getClient()), "test");
  EXPECT_EQ((*listed)->getFiles(), 1u);
  const auto undelete = [&] {
    return b->mutate<rpc::method::Undelete>(
        [&](schema::UndeleteRequest::Builder body) {
          auto id = body.initId();
          id.setInode(made->inode);
          id.setParent(1);
          id.setName(rpc::data("f"));
          id.setDeleted(entry.getDeleted());
          body.setParent(1);
          body.setName(rpc::data("g"));
        },
        50);
  };
  const auto restored = undelete();
  ASSERT_TRUE(restored) << restored.error().to_string();
  EXPECT_EQ((*restored)->getAttr().getNlink(), 1u);
  EXPECT_TRUE(undelete()) << "a retry gets the stored answer";
  EXPECT_EQ(a->recalled().size(), 1u) << "its holder wrote back first";
  EXPECT_EQ((*b->lookup("g"))->getAttr().getInode(), made->inode);
  EXPECT_EQ(server->counters.trash_files.load(), 0u);
}

TEST_F(ServiceTest, AWriterBelowAQuotaIsToldWhatItMayHave) {
  a = client();
  ASSERT_TRUE(a->mutate<rpc::method::SetQuota>([](schema::SetQuotaRequest::Builder body) {
    body.setInode(1);
    body.setValid(1);
    body.setBytes(10'000);
  }));
  const auto made = a->mutate<rpc::method::Make>(
      [](schema::MakeRequest::Builder body) { TestClient::fill_make(body, 1, "f", S_IFREG | 0644, true); });
  ASSERT_TRUE(made);
  EXPECT_TRUE((*made)->getLayout().getLimited());
  EXPECT_EQ((*made)->getLayout().getBytesMax(), 0u);
  const auto ask = [&](std::uint64_t bytes) {
    return a->mutate<rpc::method::ExtendBound>([&](schema::ExtendBoundRequest::Builder body) {
      body.setInode((*made)->getAttr().getInode());
      body.setBytes(bytes);
    });
  };
  const auto allowed = ask(6000);
  ASSERT_TRUE(allowed) << allowed.error().to_string();
  EXPECT_TRUE((*allowed)->getLimited());
  EXPECT_EQ((*allowed)->getBytesMax(), 6000u);
  EXPECT_EQ(ask(10'001).error().code(), Code::kQuotaExceeded);
  const auto space =
      a->call<rpc::method::StatFs>([](schema::StatFsRequest::Builder body) { body.setInode(1); });
  EXPECT_EQ((*space)->getTotal(), 10'000u);
  EXPECT_EQ((*space)->getAvailable(), 4000u);
  // Its lease ends with it: so does what it was allowed.
  ASSERT_EQ(a->report((*made)->getAttr().getInode(), 0, 2000, LeaseKind::NONE, 1), Code::kOk);
  const auto quotas =
      a->call<rpc::method::GetQuotas>([](schema::GetQuotasRequest::Builder body) { body.setLimit(10); });
  ASSERT_EQ((*quotas)->getItems().size(), 1u);
  EXPECT_EQ((*quotas)->getItems()[0].getBytes(), 2000u);
}

}  // namespace
}  // namespace cairn::meta
