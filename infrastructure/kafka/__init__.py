"""Kafka: the log's topic and the tasks' topics; a sender; readers on Faust. Faust delivers, Postgres decides."""
