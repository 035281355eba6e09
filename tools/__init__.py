"""Maintenance scripts: the lock, the notebook references, the book's cache, the site check."""
