-- Oldest release: 0.1.0
-- Comments on the tables of the event store and of the processes, from which docs/schema and docs/ERD.md are generated.

-- ---- the event store ----------------------------------------------------------------------------------------------------------------
comment on table es.events is 'The log: append-only, in one total order, hash-chained. Partitioned by position.';
comment on column es.events.notification_id is 'Position: 1, 2, 3, ... without gaps.';
comment on column es.events.originator_id is 'Stream. Refers to es.streams.';
comment on column es.events.originator_version is 'Version in the stream: 1, 2, 3, ... without gaps.';
comment on column es.events.topic is 'Event type.';
comment on column es.events.schema_version is 'Schema version of the payload.';
comment on column es.events.state is 'Payload: JSON, with private fields encrypted.';
comment on column es.events.meta is 'Actor, request and trace: JSON.';
comment on column es.events.event_id is 'Random id of the event.';
comment on column es.events.recorded_at is 'Time of the append, by the clock of the database.';
comment on column es.events.hash is 'SHA-256 over the event and the hash before it.';

comment on table es.head is 'The last position of the log, and its hash. One row, locked by each append.';
comment on column es.head.one is 'Always true.';
comment on column es.head.hash is 'Hash of the last event.';

comment on table es.streams is 'Version and extent of each stream. es.append writes it with each event.';
comment on column es.streams.first is 'Position of the first event.';
comment on column es.streams.newest is 'Position of the newest event.';
comment on column es.streams.version is 'Version of the newest event.';

comment on table es.commands is 'Commands that were appended, by which a repeat is recognised.';
comment on column es.commands.id is 'Random, or derived from the Idempotency-Key.';
comment on column es.commands.digest is 'HMAC of the request; null without an Idempotency-Key.';
comment on column es.commands.subject is 'Stream that the command created or changed. Refers to es.streams.';
comment on column es.commands.position is 'Position of its last event.';

comment on table es.claims is 'Values that only one stream may hold, such as e-mail addresses.';
comment on column es.claims.scope is 'Kind of the value.';
comment on column es.claims.digest is 'HMAC of the value.';
comment on column es.claims.stream is 'Holder. Refers to es.streams.';

comment on table es.secrets is 'What must be erasable, and therefore is not in the log.';
comment on column es.secrets.kind is 'password: a hash; key: a wrapped data key.';
comment on column es.secrets.owner is 'Stream to which it belongs. Refers to es.streams.';

comment on table es.refresh_tokens is 'Refresh tokens that were issued.';
comment on column es.refresh_tokens.digest is 'SHA-256 of the token.';
comment on column es.refresh_tokens.session_id is 'Stream of the session. Refers to es.streams.';
comment on column es.refresh_tokens.user_id is 'Stream of the user. Refers to es.streams.';
comment on column es.refresh_tokens.expires_at is 'End of this token.';
comment on column es.refresh_tokens.absolute_at is 'End of the session.';
comment on column es.refresh_tokens.used_at is 'Time when the token was exchanged; null before.';
comment on column es.refresh_tokens.mac is 'MAC of the other columns, so that an edited row is refused.';

-- ---- state of the processes ---------------------------------------------------------------------------------------------------------
comment on table ops.migrations is 'Migrations that were applied.';
comment on column ops.migrations.oldest_release is 'Oldest release that may run on this database.';

comment on table ops.writers is 'Which database role may append which event types.';
comment on column ops.writers.role is 'Database role.';
comment on column ops.writers.topics is 'Event types; * stands for all.';
comment on column ops.writers.actor is 'The only actor for whom the role may append; null: any.';
comment on column ops.writers.keeps is 'The role may change claims and secrets.';

comment on table ops.open_chunks is 'Planned chunks without a result. es.append accepts results of these only.';
comment on column ops.open_chunks.job is 'Stream of the job. Refers to es.streams.';
comment on column ops.open_chunks.number is 'Number of the chunk in its job.';
comment on column ops.open_chunks.images is 'Ids of the images.';
comment on column ops.open_chunks.sha256 is 'SHA-256 of each image.';

comment on table ops.capabilities is 'Event types that each running process understands.';
comment on column ops.capabilities.id is 'Random, known to the process alone.';
comment on column ops.capabilities.role is 'Database role of the process.';
comment on column ops.capabilities.kind is 'api, projector or inference.';
comment on column ops.capabilities.process is 'Host and process id.';
comment on column ops.capabilities.types is 'Event types.';
comment on column ops.capabilities.versions is 'Newest schema version of each type.';
comment on column ops.capabilities.paused is 'Why the process pauses; empty if it does not.';

comment on table ops.written_types is 'Event types and schema versions that may be written.';
comment on column ops.written_types.topic is 'Event type.';

comment on table ops.relay is 'Checkpoint of the relay. One row.';
comment on column ops.relay.one is 'Always true.';
comment on column ops.relay.epoch is 'Rises when a relay becomes the leader.';
comment on column ops.relay.position is 'Position of the last event that Kafka has confirmed.';
comment on column ops.relay.cluster is 'Kafka cluster that has it.';
comment on column ops.relay.next_offset is 'Offset after its record.';

comment on table ops.heads is 'Signed heads of the log.';
comment on column ops.heads.hash is 'Hash of the event at this position, in hexadecimal.';
comment on column ops.heads.signature is 'Ed25519 signature.';
comment on column ops.heads.key_id is 'Id of the signing key; empty for heads of release 0.1.0.';

comment on table ops.releases is 'Leases: work items that were dispatched to workers.';
comment on column ops.releases.id is 'Work item. Refers to read.work.';
comment on column ops.releases.attempts is 'How often it was dispatched.';
comment on column ops.releases.released_at is 'Time of the last dispatch.';
comment on column ops.releases.given_up is 'The work item was abandoned.';
comment on column ops.releases.held_at is 'Last heartbeat of its worker; null before the first.';

comment on table ops.workers is 'Lanes of the running inference processes.';
comment on column ops.workers.seen_at is 'Last heartbeat.';
comment on column ops.workers.slots is 'Child processes of the lane.';
comment on column ops.workers.lane is 'urgent or bulk.';

comment on table ops.counters is 'Counts of the projector, for metrics.';

comment on table ops.known_addresses is 'Addresses from which an account signed in.';
comment on column ops.known_addresses.digest is 'Keyed digest of account and address.';
comment on column ops.known_addresses.user_id is 'Account. Refers to es.secrets.';
comment on column ops.known_addresses.kind is 'Always password: the row is deleted with the password.';

comment on table ops.devices_seen is 'Last heartbeat of each device.';
comment on column ops.devices_seen.device is 'Device. Refers to read.devices.';
