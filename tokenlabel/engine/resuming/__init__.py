"""A run that was ended anywhere, by anyone, continues as if it had not been."""
