"""Holds desired state, compiles it into a snapshot and applies it; the admin API; the supervisor.

Importing this package imports nothing: the supervisor is a small process.
"""
