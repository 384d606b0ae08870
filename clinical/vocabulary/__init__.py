"""Vocabulary files: data, no code. `clinical.lexicon` reads them."""
