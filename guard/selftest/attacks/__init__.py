"""Published attacks, one small class each, as an outsider runs them."""
