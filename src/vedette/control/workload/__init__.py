"""The SPIFFE Workload API: who may have which identity, and its delivery over gRPC on `run/workload.sock`.

This package re-exports nothing: import from the module that owns the name.
"""
