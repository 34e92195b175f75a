"""Colours that do not come from the model: of named objects, of looks, of another picture."""
