"""First matching: which rows of two databases that already exist are the same ones."""
