"""File formats that hold tables: CSV, JSON lines, NumPy, HDF5, Parquet, tar shards, the Hugging Face Hub."""
