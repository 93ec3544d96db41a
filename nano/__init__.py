"""nano: the tiny embedded model, its closed domain, its data recipe and its training."""
