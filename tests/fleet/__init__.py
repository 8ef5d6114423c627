"""Workers on other machines, as their driver sees them."""
