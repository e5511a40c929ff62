"""Score maps of the annotator: writing, storing, and turning them into token targets."""
