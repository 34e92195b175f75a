"""Other projects' weight layouts, renamed to diffusers' and transformers'."""
