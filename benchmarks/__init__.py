"""polyvec beside the native clients: `python -m benchmarks`."""
