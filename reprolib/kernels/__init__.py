"""Kernels: one function each, dispatched on the device."""
