"""Triton forms of the operators, for GPUs; without a GPU they run in Triton's interpreter."""
