"""Images in tars."""
