"""The method: predictors, masks, and the network that they are in."""
