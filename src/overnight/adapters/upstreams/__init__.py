"""Model servers: any OpenAI-compatible URL, and the embedded model."""
