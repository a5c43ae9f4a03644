"""The process `inference-bridge`: it lets external classifiers work on jobs, and records their answers."""
