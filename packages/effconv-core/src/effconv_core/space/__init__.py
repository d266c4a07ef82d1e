"""Which layers are searched, and which sizes they may have."""
