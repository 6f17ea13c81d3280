"""Benchmarks of the service: each figure beside something measured in the same run, since machines are noisy."""
