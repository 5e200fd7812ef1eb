"""Files, locks, caches, memory, seeds and fast paths."""
