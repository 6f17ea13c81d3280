"""The command line `overnight`."""
