"""Instance masks: where they come from."""
