"""From texts to token ids: chat templates, prompt and response ids, the token cache."""
