"""Image and mask files: which are read, what their pixels are, and why others are refused."""
