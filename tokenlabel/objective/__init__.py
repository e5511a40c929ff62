"""Token labeling: token targets from score maps and Views, and the loss on them."""
