"""Reads what the engine wrote: records, logs and metrics. Never writes what the engine owns, except to prune it."""
