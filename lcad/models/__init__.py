"""The networks of the method, and how a config becomes them."""
