"""What a caption says: words, colours, the things that have them."""
