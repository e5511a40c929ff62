"""Pictures of label maps, tokens and segmentations."""
