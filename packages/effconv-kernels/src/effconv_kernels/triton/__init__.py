"""Triton implementations of the operators, for GPUs or Triton's interpreter."""
