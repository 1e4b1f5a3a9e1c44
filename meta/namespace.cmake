# Sources of the namespace side of meta/.
set(namespace_sources
  journal.cc
  kv_map.cc
  kv_rocksdb.cc
  single_writer.cc
  txn_overlay.cc)
set(namespace_tests
  executor_test.cc
  kv_store_test.cc)
