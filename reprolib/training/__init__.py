"""What everything that trains shares: checkpoints, monitors."""
