"""All runs in a directory side by side, as one page: written once, or served live."""
