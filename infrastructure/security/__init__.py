"""The keys of an installation, and what is made with them."""
