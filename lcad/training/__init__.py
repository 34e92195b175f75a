"""The two training stages and what runs them."""
