"""What serves one chapter beside its method."""
