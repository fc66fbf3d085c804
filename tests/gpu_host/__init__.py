"""The GPU engine's kernels, compiled for the host: what stands in for CUDA, and a device made of it."""
