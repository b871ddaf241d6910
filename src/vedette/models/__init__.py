"""Models: what they are, and the processes that run them.

Owns: the registry, what is let in, the keeper and the workers (docs/adr/0048). Must not: see who asks; the engine does,
and passes on what may be asked over a worker's socket.
"""
