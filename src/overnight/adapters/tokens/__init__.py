"""Tokenizers: of OpenAI, of open models from a file, and an estimate by size."""
