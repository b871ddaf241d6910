"""Issues identities: the node's CA, its signing key and its tokens; reads the public keys of other
issuers.

This package re-exports nothing: import from the module that owns the name, so that importing stays
cheap.
"""
