"""All that needs torch."""
