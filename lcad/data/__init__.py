"""Photos with captions, as training reads them."""
