"""Models at the edge: files that answer predictions, each version in a process of its own.

Owns: what a model's process is started with and what it says (`worker`, `inspect`). Must not: import the runtime
(`onnxruntime`) into a process that does anything else, or run a model in control.
"""
