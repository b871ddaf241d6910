"""Attacks a node and sees whether it holds: `vedette verify` (docs/verify.md, ADR 0037).

Owns: the checks, the twin that is attacked where a check must change something, and the signed evidence. Must not: be
imported by what it attacks, change the node it verifies, or call a check passed that attacked nothing.
"""
