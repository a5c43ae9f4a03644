"""The embedded stack: Postgres, a Kafka-protocol broker and Valkey as child processes, without installation."""
