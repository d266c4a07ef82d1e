"""Small spaces of plans, every plan of which is trained, and what is compared in them."""
