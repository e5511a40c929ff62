"""What is done with whole label stores: import, merge, count, verify."""
