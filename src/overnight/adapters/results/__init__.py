"""Result logs."""
