"""Kafka topics, producers, and batch consumers. Kafka only delivers; Postgres records what was applied."""
