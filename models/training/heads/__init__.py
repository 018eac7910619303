"""Rendered heads: people drawn from `models.faces`, with exact labels.

Everything here is imported on demand, inside functions, by whoever is outside this folder: it needs
numba, and its kernels compile at their first call.
"""
