"""The only writer of local durable state.

This package re-exports nothing: import from the module that owns the name, so that importing stays
cheap.
"""
