"""The audit log: what the spool holds, in a Merkle tree whose heads are signed (docs/adr/0031).

This package re-exports nothing: import from the module that owns the name.
"""
