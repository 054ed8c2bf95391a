"""The Pairs panel: every held-out pair before and after, its tokens, its loss, its lead at every evaluation."""
