"""Vision transformers with a token head."""
