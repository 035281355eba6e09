"""Data sets: images, their readers, the cache, and the sets made from others."""
