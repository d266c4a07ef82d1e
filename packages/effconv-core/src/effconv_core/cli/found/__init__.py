"""What is done with the network of a run: test it, use it, hand it on."""
