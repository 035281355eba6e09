"""Timings beside named peers."""
