"""What was decided, on disk, and what came of it."""
