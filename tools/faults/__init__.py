"""The fault drill: what is killed at random, resumed, and compared with what was not."""
