"""A run that was ended anywhere, by anyone, goes on as if it had not been."""
