"""Vedette: a zero-trust edge node that one command starts.

The package is divided into rooms; a room imports only rooms on the floors below it (ARCHITECTURE.md draws them and
`.importlinter` proves it). Importing `vedette` itself imports nothing: the engine process has a memory budget.
"""

__version__ = "0.1.0"
