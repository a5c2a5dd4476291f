"""EDM's pickles, read without running what is in them."""
