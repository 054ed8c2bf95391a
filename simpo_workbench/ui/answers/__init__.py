"""The Answers panel: answers side by side, and the blind test."""
