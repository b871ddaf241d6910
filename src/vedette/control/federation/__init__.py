"""Trust bundles over the network: the node's own for others, and those of others that it follows.

This package re-exports nothing: import from the module that owns the name.
"""
