"""Arrays in the files that people pass on: NumPy, MATLAB, HDF5, PyTorch, safetensors."""
