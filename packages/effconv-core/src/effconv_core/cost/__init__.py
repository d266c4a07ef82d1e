"""What sizes cost, budgets of it, and the nearest plan within them."""
