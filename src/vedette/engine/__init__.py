"""Starts, feeds and watches the native engine.

Owns: `_native` and its stub, the engine's process and the client of its socket. Importing this package imports nothing:
the engine's process has a memory budget of 40 MB.
"""
