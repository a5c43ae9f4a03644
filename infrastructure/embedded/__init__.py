"""Servers that need no installation: Postgres, a Kafka-protocol broker and Redis, each a child process of ours."""
