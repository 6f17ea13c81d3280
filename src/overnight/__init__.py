"""Self-hosted batch inference that speaks the OpenAI and the Azure OpenAI Batch API."""

__version__ = "0.1.0"
