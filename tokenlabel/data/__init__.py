"""Images, their labels and their order."""
