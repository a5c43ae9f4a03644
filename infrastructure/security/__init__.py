"""Keys of an installation, and everything that is encrypted, signed or hashed with them."""
