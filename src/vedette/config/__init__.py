"""The typed model, written once: manifests people write and the snapshot the engine loads.

This package re-exports nothing: import from the module that owns the name, so that importing stays
cheap.
"""
