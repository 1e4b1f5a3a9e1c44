# Sources of the namespace side of meta/.
set(namespace_sources)
set(namespace_tests)
