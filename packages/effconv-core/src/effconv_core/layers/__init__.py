"""Convolutions whose kernels are given to them."""
