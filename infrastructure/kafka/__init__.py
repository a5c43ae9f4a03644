"""Kafka: topics, producers, and consumers of batches. Kafka delivers; Postgres decides what was applied."""
