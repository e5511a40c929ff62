"""Score maps of the annotator: computing, storing and reading them."""
