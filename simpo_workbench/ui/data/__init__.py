"""The Data panel: what was kept and refused, lengths, and pairs token by token."""
