"""Benchmarks: each measures one promise and prints one table (docs/benchmarks.md)."""
