"""Admits components: refuses what is none, compiles it on the node, builds it from source.

This package re-exports nothing: import from the module that owns the name, so that importing stays
cheap.
"""
