"""Base models, tokenizers and adapters: loading, checking, the demo model, tiny models."""
