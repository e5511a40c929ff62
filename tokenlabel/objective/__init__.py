"""The method: score maps and Views to token targets, and the loss on them."""
