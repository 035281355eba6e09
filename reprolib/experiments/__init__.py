"""Plans, runs and records of the papers' experiments."""
