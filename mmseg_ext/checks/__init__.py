"""What is settled and checked about a segmentation config before training."""
