"""The rules of the service: pure, framework-free, without input or output."""
