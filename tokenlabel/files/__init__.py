"""Finding, reading and writing files, and the names of outputs."""
