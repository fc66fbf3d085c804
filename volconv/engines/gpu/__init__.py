"""What is computed on a GPU: kernels of our own, cuBLAS and cuFFT, all through CuPy."""
