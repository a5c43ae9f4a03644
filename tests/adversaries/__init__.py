"""Attackers and faulty components: one file for each."""
