"""Use cases, in the words of the domain: no HTTP, no SQL."""
