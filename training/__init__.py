"""Trains and evaluates the shipped models. Training needs the extra `train`."""
