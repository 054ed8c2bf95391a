"""The Pairs panel: every held-out pair before and after, its tokens, its place on the loss, its lead history."""
