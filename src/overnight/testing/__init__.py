"""For tests, yours and ours: public, documented, and never imported by the service itself."""
