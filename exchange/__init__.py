"""What stands behind the three modules at the root."""
