"""Checks authorisation policies and writes the ones the node starts with.

This package re-exports nothing: import from the module that owns the name, so that importing stays
cheap.
"""
