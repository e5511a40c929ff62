"""Reads image and mask files, converts their pixels, and explains why a file cannot be read."""
