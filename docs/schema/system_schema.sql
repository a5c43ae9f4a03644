-- The event store (es) and the state of the processes (ops): tables, functions and rights.
-- `make schema` writes this file from infrastructure/postgres/migrations. Do not edit it; rows that migrations insert are not shown.

set check_function_bodies = off;

create schema es;
create schema ops;

CREATE OR REPLACE FUNCTION es.refuse()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op = 'INSERT' and current_setting('es.appending', true) = 'with streams' then
    return null;
  end if;
  if tg_op = 'INSERT' and current_setting('es.appending', true) = 'on' then
    raise exception 'the log was partitioned meanwhile' using errcode = 'serialization_failure';
  end if;
  raise exception 'the log is append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
end $function$;

CREATE OR REPLACE FUNCTION es.refuse_directly()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'the log is append-only: % of a partition is refused', tg_op using errcode = 'insufficient_privilege';
end $function$;

CREATE OR REPLACE FUNCTION ops.refuse_access_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if tg_op in ('INSERT', 'DELETE') and current_setting('ops.access_change', true) = 'on' then
    return null;
  end if;
  raise exception 'the trail of access is append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
end $function$;

CREATE OR REPLACE FUNCTION ops.erase_addresses()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform set_config('ops.access_change', 'on', true);
  delete from ops.access_addresses a where a.person = old.owner;
  perform set_config('ops.access_change', '', true);
  return null;
end $function$;

-- Values that only one stream may hold, such as e-mail addresses.
create table es.claims (
  scope  text not null,   -- Kind of the value.
  digest bytea not null,  -- HMAC of the value.
  stream uuid not null,   -- Holder. Refers to es.streams.
  primary key (scope, digest)
);
create index claims_stream on es.claims using btree (stream);

-- Commands that were appended, by which a repeat is recognised.
create table es.commands (
  id          uuid not null,    -- Random, or derived from the Idempotency-Key.
  digest      bytea,            -- HMAC of the request; null without an Idempotency-Key.
  subject     uuid,             -- Stream that the command created or changed. Refers to es.streams.
  position    bigint not null,  -- Position of its last event.
  recorded_at timestamptz not null,
  primary key (id)
);

-- The log: append-only, in one total order, hash-chained. Partitioned by position.
create table es.events (
  notification_id    bigint not null,       -- Position: 1, 2, 3, ... without gaps.
  originator_id      uuid not null,         -- Stream. Refers to es.streams.
  originator_version integer not null,      -- Version in the stream: 1, 2, 3, ... without gaps.
  topic              text not null,         -- Event type.
  schema_version     integer not null,      -- Schema version of the payload.
  state              bytea not null,        -- Payload: JSON, with private fields encrypted.
  meta               bytea not null,        -- Actor, request and trace: JSON.
  event_id           uuid not null,         -- Random id of the event.
  recorded_at        timestamptz not null,  -- Time of the append, by the clock of the database.
  hash               bytea not null,        -- SHA-256 over the event and the hash before it.
  primary key (notification_id),
  constraint events_originator_version_check check ((originator_version >= 1)),
  constraint events_schema_version_check check ((schema_version >= 1)),
  constraint events_state_check check ((octet_length(state) <= 262144))
) partition by range (notification_id);
alter table es.events alter column state set storage main;
create index events_administrators on only es.events using btree (originator_id, notification_id) where ((topic = any (array['UserRegistered'::text, 'UserRoleChanged'::text])) and (POSITION(('\x22726f6c65223a2261646d696e22'::bytea) IN (state)) > 0));
create index events_discarded on only es.events using btree (notification_id) where (topic = 'DeadLetterDiscarded'::text);
create index events_long_streams on only es.events using btree (originator_id) where ((originator_version = 1001) and (not starts_with(topic, 'Classification'::text)));
create trigger append_only before insert or delete or update or truncate on es.events for each statement execute function es.refuse();

-- The last position of the log, and its hash. One row, locked by each append.
create table es.head (
  one      boolean not null default true,  -- Always true.
  position bigint not null,
  hash     bytea not null,                 -- Hash of the last event.
  primary key (one),
  constraint head_one_check check (one)
) with (fillfactor=10);

-- Refresh tokens that were issued.
create table es.refresh_tokens (
  digest      bytea not null,        -- SHA-256 of the token.
  session_id  uuid not null,         -- Stream of the session. Refers to es.streams.
  user_id     uuid not null,         -- Stream of the user. Refers to es.streams.
  issued_at   timestamptz not null,
  expires_at  timestamptz not null,  -- End of this token.
  absolute_at timestamptz not null,  -- End of the session.
  used_at     timestamptz,           -- Time when the token was exchanged; null before.
  mac         bytea,                 -- MAC of the other columns, so that an edited row is refused.
  primary key (digest)
);
create index refresh_tokens_session on es.refresh_tokens using btree (session_id);
create index refresh_tokens_user on es.refresh_tokens using btree (user_id);

-- What must be erasable, and therefore is not in the log.
create table es.secrets (
  kind  text not null,  -- password: a hash; key: a wrapped data key; api-key, previous-api-key: the hash of the secret of an API key.
  owner uuid not null,  -- Stream to which it belongs. Refers to es.streams.
  value bytea not null,
  primary key (kind, owner)
);
create trigger erase_addresses after delete on es.secrets FOR EACH ROW WHEN ((old.kind = 'key'::text)) execute function ops.erase_addresses();

-- Version and extent of each stream. es.append writes it with each event.
create table es.streams (
  first   bigint not null,   -- Position of the first event.
  newest  bigint not null,   -- Position of the newest event.
  stream  uuid not null,
  version integer not null,  -- Version of the newest event.
  primary key (stream)
) with (fillfactor=90);

-- Addresses of clients, apart from the trail of access, so that they can be erased.
create table ops.access_addresses (
  position bigint not null,  -- Refers to ops.access_log.
  salt     bytea not null,   -- Random bytes of the digest in ops.access_log.
  address  text not null,    -- Address of the client.
  person   uuid,             -- Account with which the address is erased: of the actor, or the one that a sign-in named.
  primary key ("position"),
  constraint access_addresses_address_check check ((octet_length(address) <= 64))
);
create index access_addresses_persons on ops.access_addresses using btree (person) where (person is not null);
create trigger append_only before insert or delete or update or truncate on ops.access_addresses for each statement execute function ops.refuse_access_change();

-- Both ends of the trail of access. One row.
create table ops.access_head (
  one             boolean not null default true,  -- Always true.
  position        bigint not null,                -- Position of the newest record.
  hash            bytea not null,                 -- Its hash.
  anchor_position bigint not null,                -- Position of the last record that was removed; 0 if none was.
  anchor_hash     bytea not null,                 -- Its hash, from which the chain goes on.
  primary key (one),
  constraint access_head_one_check check (one)
) with (fillfactor=10);

-- Signed heads of the trail of access.
create table ops.access_heads (
  position  bigint not null,
  hash      text not null,  -- Hash of the record at this position, in hexadecimal.
  signed_at timestamptz not null,
  signature text not null,  -- Ed25519 signature.
  key_id    text not null,  -- Id of the signing key.
  primary key ("position")
);
create index access_heads_times on ops.access_heads using btree (signed_at);

-- The trail of access: refused requests, downloads, uses of keys, and reads by administrators.
create table ops.access_log (
  position    bigint not null,       -- Position: 1, 2, 3, and so on. The oldest records are removed after a while.
  recorded_at timestamptz not null,  -- Time of the append, by the clock of the database.
  at          timestamptz not null,  -- Time of the request.
  kind        text not null,         -- Such as download or forbidden.
  outcome     text not null,         -- allowed, refused or throttled.
  actor_id    uuid,                  -- Account, service or registration; null if it is not known.
  actor_kind  text not null,         -- user, service, pending or anonymous.
  key_id      uuid,                  -- API key of the request; null without one. Refers to read.api_keys.
  noun        text not null,         -- Noun of the object, such as image; empty without an object.
  object_id   uuid,                  -- What was read or asked for, which need not exist; null for a list.
  dataset_id  uuid,                  -- Dataset of the object, where the request named it. Refers to read.datasets.
  route       text not null,         -- Method and template of the route, without the values of its parameters.
  request_id  text not null,         -- Id of the request; empty for a record of several.
  count       integer not null,      -- Number of requests that the record stands for.
  address     bytea not null,        -- SHA-256 over the salt and the address of the client.
  hash        bytea not null,        -- SHA-256 over the previous hash and all columns.
  primary key ("position"),
  constraint access_log_actor_kind_check check ((octet_length(actor_kind) <= 32)),
  constraint access_log_count_check check ((count >= 1)),
  constraint access_log_kind_check check (((kind <> ''::text) and (octet_length(kind) <= 32))),
  constraint access_log_noun_check check ((octet_length(noun) <= 32)),
  constraint access_log_outcome_check check ((outcome = any (array['allowed'::text, 'refused'::text, 'throttled'::text]))),
  constraint access_log_request_id_check check ((octet_length(request_id) <= 64)),
  constraint access_log_route_check check ((octet_length(route) <= 256))
);
create index access_log_actors on ops.access_log using btree (actor_id, "position") where (actor_id is not null);
create index access_log_datasets on ops.access_log using btree (dataset_id, "position") where (dataset_id is not null);
create index access_log_keys on ops.access_log using btree (key_id, "position") where (key_id is not null);
create index access_log_objects on ops.access_log using btree (object_id, "position") where (object_id is not null);
create index access_log_times on ops.access_log using btree (recorded_at, "position");
create trigger append_only before insert or delete or update or truncate on ops.access_log for each statement execute function ops.refuse_access_change();

-- The last batch of each process that appends to the trail of access.
create table ops.access_writers (
  writer     uuid not null,    -- Random, known to the process alone.
  batch      bigint not null,  -- Number of its last batch, so that a repeated batch is appended once.
  written_at timestamptz not null,
  primary key (writer)
);

-- Event types that each running process understands.
create table ops.capabilities (
  id       uuid not null,       -- Random, known to the process alone.
  role     name not null,       -- Database role of the process.
  kind     text not null,       -- api, projector or inference.
  process  text not null,       -- Host and process id.
  release  text not null,
  types    text[] not null,     -- Event types.
  versions integer[] not null,  -- Newest schema version of each type.
  paused   text not null,       -- Why the process pauses; empty if it does not.
  seen_at  timestamptz not null,
  primary key (id)
) with (fillfactor=50);

-- Counts of the projector, for metrics.
create table ops.counters (
  name  text not null,
  label text not null,
  value bigint not null,
  primary key (name, label)
);

-- Last heartbeat of each device.
create table ops.devices_seen (
  device  uuid not null,  -- Device. Refers to read.devices.
  seen_at timestamptz not null,
  primary key (device)
) with (fillfactor=50);

-- Images that external classifiers were sent or will be sent, with the first answer to each, until their job has ended.
create table ops.external_answers (
  job           uuid not null,                   -- Refers to read.classifications.
  image_id      uuid not null,                   -- Refers to read.images.
  number        integer not null,                -- The chunk of the job.
  model_name    text not null,
  attempts      integer not null default 0,      -- How often the image was sent.
  first_sent_at timestamptz,
  sent_at       timestamptz,                     -- When it was sent last.
  answered_at   timestamptz,
  label         text,
  confidence    double precision,                -- From 0 to 1.
  done          boolean not null default false,  -- The chunk is recorded: nothing waits for an answer.
  primary key (job, image_id)
);
create index external_answers_chunk on ops.external_answers using btree (job, number);
create index external_answers_waiting on ops.external_answers using btree (model_name, first_sent_at) where ((answered_at is null) and (not done));

-- When the external classifier of each model answered last.
create table ops.external_models (
  model_name  text not null,
  answered_at timestamptz not null,
  primary key (model_name)
);

-- Signed heads of the log.
create table ops.heads (
  position  bigint not null,
  hash      text not null,                   -- Hash of the event at this position, in hexadecimal.
  signed_at timestamptz not null,
  signature text not null,                   -- Ed25519 signature.
  key_id    text not null default ''::text,  -- Id of the signing key; empty for heads of release 0.1.0.
  primary key ("position")
);

-- The position up to which mails were sent. One row.
create table ops.mail_checkpoint (
  one           boolean not null default true,
  position      bigint not null,                 -- Position of the last event whose mails were sent, deferred or refused.
  problem       text not null default ''::text,  -- Why no mail can be sent at present; empty if all is well.
  problem_since timestamptz,                     -- Since when.
  primary key (one),
  constraint mail_checkpoint_one_check check (one)
) with (fillfactor=10);

-- Mails that the server did not accept. Names no address.
create table ops.mail_failures (
  position        bigint not null,       -- Position of the event that causes the mail.
  number          integer not null,      -- Number of the mail among those of the event; 0 if the event cannot be read.
  reason          text not null,         -- Reason of the last attempt.
  attempts        integer not null,      -- Attempts so far.
  failed_at       timestamptz not null,  -- Time of the last attempt.
  next_attempt_at timestamptz,           -- Time of the next attempt; null if the mail was refused for good.
  primary key ("position", number)
);
create index mail_failures_due on ops.mail_failures using btree (next_attempt_at) where (next_attempt_at is not null);

-- Migrations that were applied.
create table ops.migrations (
  number         integer not null,
  applied_at     timestamptz not null default now(),
  oldest_release text,  -- Oldest release that may run on this database.
  primary key (number)
);

-- Planned chunks without a result. es.append accepts results of these only.
create table ops.open_chunks (
  job           uuid not null,     -- Stream of the job. Refers to es.streams.
  number        integer not null,  -- Number of the chunk in its job.
  dataset_id    uuid not null,
  model_name    text not null,
  model_version integer not null,
  model_sha256  text not null,
  images        uuid[] not null,   -- Ids of the images.
  sha256        text[] not null,   -- SHA-256 of each image.
  labels        text[],            -- Labels of the version that an external job runs; null for other jobs.
  threshold     double precision,  -- Confidence below which a result of an external job needs review; null for other jobs.
  primary key (job, number)
);

-- Checkpoint of the relay. One row.
create table ops.relay (
  one         boolean not null default true,  -- Always true.
  epoch       bigint not null,                -- Rises when a relay becomes the leader.
  position    bigint not null,                -- Position of the last event that Kafka has confirmed.
  cluster     text not null,                  -- Kafka cluster that has it.
  next_offset bigint not null,                -- Offset after its record.
  primary key (one),
  constraint relay_one_check check (one)
) with (fillfactor=10);

-- Leases: work items that were dispatched to workers.
create table ops.releases (
  id          uuid not null,                   -- Work item. Refers to read.work.
  attempts    integer not null,                -- How often it was dispatched.
  released_at timestamptz not null,            -- Time of the last dispatch.
  given_up    boolean not null default false,  -- The work item was abandoned.
  held_at     timestamptz,                     -- Last heartbeat of its worker; null before the first.
  primary key (id)
);

-- Lanes of the running inference processes.
create table ops.workers (
  id      text not null,
  seen_at timestamptz not null,  -- Last heartbeat.
  slots   integer not null,      -- Child processes of the lane.
  lane    text not null,         -- urgent or bulk.
  primary key (id)
);

-- Which database role may append which event types.
create table ops.writers (
  role   text not null,     -- Database role.
  topics text[] not null,   -- Event types; * stands for all.
  actor  uuid,              -- The only actor for whom the role may append; null: any.
  keeps  boolean not null,  -- The role may change claims and secrets.
  primary key (role)
);

-- Event types and schema versions that may be written.
create table ops.written_types (
  topic          text not null,  -- Event type.
  schema_version integer not null,
  since          timestamptz not null default clock_timestamp(),
  primary key (topic, schema_version)
);

-- The first and last use of each API key. Those of a user are deleted with the user's password, all others 400 days after the key ended.
create table ops.key_uses (
  key           uuid not null,                           -- API key, or id (jti) of a signed service token. Refers to read.api_keys.
  user_id       uuid,                                    -- Owner of a personal key; null for a program. Refers to es.secrets.
  kind          text not null default 'password'::text,  -- Always password: the row is deleted with the password of the owner.
  first_at      timestamptz not null default clock_timestamp(),
  last_at       timestamptz not null default clock_timestamp(),
  network       text not null,                           -- Network of the last client.
  legacy_name   text,                                    -- Name of the program in a signed service token; null for an API key.
  legacy_expiry timestamptz,                             -- When that token expires.
  primary key (key),
  constraint key_uses_kind_check check ((kind = 'password'::text)),
  constraint key_uses_kind_user_id_fkey foreign key (kind, user_id) references es.secrets(kind, owner) on delete cascade
);
create index key_uses_legacy on ops.key_uses using btree (first_at, key) where (legacy_name is not null);
create index key_uses_of_user on ops.key_uses using btree (kind, user_id);

-- Addresses from which an account signed in.
create table ops.known_addresses (
  digest  bytea not null,                          -- Keyed digest of account and address.
  user_id uuid not null,                           -- Account. Refers to es.secrets.
  kind    text not null default 'password'::text,  -- Always password: the row is deleted with the password.
  seen_at timestamptz not null default now(),
  primary key (digest),
  constraint known_addresses_kind_check check ((kind = 'password'::text)),
  constraint known_addresses_kind_user_id_fkey foreign key (kind, user_id) references es.secrets(kind, owner) on delete cascade
);
create index known_addresses_account on ops.known_addresses using btree (kind, user_id);
create index known_addresses_seen on ops.known_addresses using btree (seen_at);

create table es.events_0000 (
  notification_id    bigint not null,
  originator_id      uuid not null,
  originator_version integer not null,
  topic              text not null,
  schema_version     integer not null,
  state              bytea not null,
  meta               bytea not null,
  event_id           uuid not null,
  recorded_at        timestamptz not null,
  hash               bytea not null,
  primary key (notification_id),
  constraint events_0000_originator_id_originator_version_key unique (originator_id, originator_version),
  constraint events_originator_version_check check ((originator_version >= 1)),
  constraint events_schema_version_check check ((schema_version >= 1)),
  constraint events_state_check check ((octet_length(state) <= 262144))
);
alter table es.events_0000 alter column state set storage main;
create index events_0000_administrators on es.events_0000 using btree (originator_id, notification_id) where ((topic = any (array['UserRegistered'::text, 'UserRoleChanged'::text])) and (POSITION(('\x22726f6c65223a2261646d696e22'::bytea) IN (state)) > 0));
create index events_0000_long_streams on es.events_0000 using btree (originator_id) where ((originator_version = 1001) and (not starts_with(topic, 'Classification'::text)));
create index events_0000_notification_id_idx on es.events_0000 using btree (notification_id) where (topic = 'DeadLetterDiscarded'::text);
alter table es.events attach partition es.events_0000 for values from (minvalue) to ('16777216');
create trigger append_only before insert or delete or update or truncate on es.events_0000 for each statement execute function es.refuse_directly();

-- Models whose external classifier has images of open jobs to answer: since when the oldest of them waits, and the last answer to any image.
create view ops.external_waits as
 SELECT w.model_name,
    w.images,
    w.waiting_since,
    m.answered_at
   FROM (( SELECT a.model_name,
            count(*) AS images,
            min(a.first_sent_at) AS waiting_since
           FROM ops.external_answers a
          WHERE ((a.answered_at IS NULL) AND (NOT a.done) AND (a.first_sent_at IS NOT NULL) AND (EXISTS ( SELECT
                   FROM ops.open_chunks o
                  WHERE ((o.job = a.job) AND (o.number = a.number)))))
          GROUP BY a.model_name) w
     LEFT JOIN ops.external_models m USING (model_name));

CREATE OR REPLACE FUNCTION es.framed(part bytea)
 RETURNS bytea
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN (int4send(octet_length(part)) || part);

CREATE OR REPLACE FUNCTION es.append(k_id uuid[], k_digest bytea[], k_subject uuid[], k_meta bytea[], e_cmd integer[], e_stream uuid[], e_version integer[], e_topic text[], e_schema integer[], e_state bytea[], e_id uuid[], g_cmd integer[], g_stream uuid[], g_version integer[], g_closers text[], c_cmd integer[], c_scope text[], c_digest bytea[], c_stream uuid[], c_claimed boolean[], s_cmd integer[], s_kind text[], s_owner uuid[], s_value bytea[])
 RETURNS TABLE(outcome text, "position" bigint, subject uuid, detail text)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  head      record;
  known     record;
  last      bigint;
  chain     bytea;
  stamp     timestamptz;
  micros    bytea;
  e         int := 1;
  g         int := 1;
  c         int := 1;
  s         int := 1;
  until     int;
  verdict   text;
  why       text;
  newest    int;
  stream    es.streams;
  -- Events of several commands are written in one statement, unless something reads them before.
  together  boolean := cardinality(k_id) > 1 and not e_topic && '{ClassificationPlanned,ImageAccepted,ImageRejected,ModelCheckPassed,ModelCheckFailed,ModelVersionAdded}';
  positions bigint[];                                  -- of the events that are to be written so, and their hashes
  hashes    bytea[];
  holder    uuid;
  writer    ops.writers := ops.writer();
  checked   record;
  jobs      uuid[];
  numbers   integer[];
begin
  select h.position, h.hash into head from es.head h for update;
  last := head.position;
  chain := head.hash;
  stamp := clock_timestamp();
  micros := es.framed(int8send((extract(epoch from stamp) * 1000000)::bigint));
  perform set_config('es.appending', 'with streams', true);
  if to_regclass('es.' || es.partition_name(es.partition_number(last + cardinality(e_cmd)))) is null then
    call es.prepare_partitions(last + cardinality(e_cmd));
  end if;
  if together then                                     -- whole, since `unnest` goes by places
    positions := array_fill(null::bigint, array[cardinality(e_cmd)]);
    hashes := array_fill(null::bytea, array[cardinality(e_cmd)]);
  end if;

  for i in 1 .. cardinality(k_id) loop
    verdict := 'appended';
    why := null;
    select k.position, k.digest, k.subject into known from es.commands k where k.id = k_id[i];
    if found then
      verdict := case when known.digest is distinct from k_digest[i] then 'reused' else 'replayed' end;
    end if;

    while g <= cardinality(g_cmd) and g_cmd[g] = i loop
      if verdict = 'appended' then
        select * into stream from es.streams v where v.stream = g_stream[g];
        if stream.version is null then
          verdict := 'missing';
          why := g_stream[g]::text;
        elsif g_version[g] is not null and stream.version <> g_version[g] then
          verdict := 'conflict';
        elsif g_closers[g] <> '' and (
          es.stream_holds(stream, string_to_array(g_closers[g], ','))
        or together and stream.newest > head.position and exists (
          select from unnest(e_stream, e_topic, positions) as n (stream, topic, position)
            where n.stream = g_stream[g] and n.topic = any (string_to_array(g_closers[g], ',')) and n.position is not null
        )) then
          verdict := 'closed';
          why := g_stream[g]::text;
        end if;
      end if;
      g := g + 1;
    end loop;

    until := e;
    while until <= cardinality(e_cmd) and e_cmd[until] = i loop
      if verdict = 'appended' and (until = e or e_stream[until] <> e_stream[until - 1]) then
        select v.version into newest from es.streams v where v.stream = e_stream[until];
        if coalesce(newest, 0) <> e_version[until] - 1 then
          verdict := 'conflict';
        end if;
      end if;
      until := until + 1;
    end loop;

    if verdict = 'appended' then
      for j in c .. cardinality(c_cmd) loop
        exit when c_cmd[j] <> i;
        select l.stream into holder from es.claims l where l.scope = c_scope[j] and l.digest = c_digest[j];
        if c_claimed[j] and found and holder <> c_stream[j] and not exists (
          select from generate_series(c, j - 1) as r where not c_claimed[r] and c_stream[r] = holder
            and (c_digest[r] is null or c_scope[r] = c_scope[j] and c_digest[r] = c_digest[j])
        ) then
          verdict := 'taken';
          why := c_scope[j];
        end if;
      end loop;
    end if;

    if verdict = 'appended' and not writer.keeps and (
      (c <= cardinality(c_cmd) and c_cmd[c] = i) or (s <= cardinality(s_cmd) and s_cmd[s] = i)
    ) then
      verdict := 'refused';
      why := format('%s may not change claims or secrets', writer.role);
    end if;
    if verdict = 'appended' and writer.actor is not null
      and (ops.as_json(k_meta[i]) #>> '{actor,id}')::uuid is distinct from writer.actor then
      verdict := 'refused';
      why := format('%s may not act for others', writer.role);
    end if;
    jobs := '{}';
    numbers := '{}';
    for j in e .. until - 1 loop
      exit when verdict <> 'appended';
      if not (e_topic[j] = any (writer.topics) or '*' = any (writer.topics)) then
        verdict := 'refused';
        why := format('%s may not append %s', writer.role, e_topic[j]);
      elsif e_topic[j] in ('ChunkJudged', 'ImageAccepted', 'ImageRejected') and e_schema[j] <> 1 then
        verdict := 'refused';
        why := format('%s has no schema version %s', e_topic[j], e_schema[j]);
      elsif e_topic[j] = 'ChunkJudged' then
        select * into checked from ops.check_judgement(e_stream[j], e_version[j], e_state[j]);
        jobs := jobs || checked.job;
        numbers := numbers || checked.number;
        if checked.why is not null then
          verdict := 'refused';
          why := checked.why;
        end if;
      elsif e_topic[j] in ('ImageAccepted', 'ImageRejected') then
        why := ops.check_inspection(e_stream[j], e_state[j],
          case when j > e and e_stream[j - 1] = e_stream[j] and e_topic[j - 1] = 'ImageUploaded' then e_state[j - 1] end);
        if why is not null then
          verdict := 'refused';
        end if;
      elsif e_topic[j] = 'ModelVersionAdded' and writer.role = 'bioscope_api' then
        why := ops.check_declaration(e_stream[j], e_state[j], ops.as_json(k_meta[i]) #>> '{actor,id}');
        if why is not null then
          verdict := 'refused';
        end if;
      elsif e_topic[j] = 'ModelVersionAdded' and writer.role = 'bioscope_inference'
        and ops.as_json(e_state[j]) #>> '{version,kind}' = 'external' then
        verdict := 'refused';
        why := 'no package is an external classifier';
      elsif e_topic[j] in ('ModelCheckPassed', 'ModelCheckFailed')
        or (writer.role = 'bioscope_inference' and e_topic[j] in ('ModelVersionAdded', 'ModelAliasMoved')) then
        why := ops.check_model_answer(e_stream[j], e_version[j], e_topic[j], e_state[j], e_stream[e : until - 1], e_topic[e : until - 1],
          e_state[e : until - 1]);
        if why is not null then
          verdict := 'refused';
        end if;
      end if;
    end loop;

    while c <= cardinality(c_cmd) and c_cmd[c] = i loop
      if verdict = 'appended' and c_claimed[c] then
        insert into es.claims (scope, digest, stream) values (c_scope[c], c_digest[c], c_stream[c]) on conflict do nothing;
      elsif verdict = 'appended' and c_digest[c] is null then
        delete from es.claims l where l.stream = c_stream[c];
      elsif verdict = 'appended' then
        delete from es.claims l where l.scope = c_scope[c] and l.digest = c_digest[c] and l.stream = c_stream[c];
      end if;
      c := c + 1;
    end loop;

    while s <= cardinality(s_cmd) and s_cmd[s] = i loop
      if verdict = 'appended' and s_value[s] is null then
        delete from es.secrets x where x.kind = s_kind[s] and x.owner = s_owner[s];
      elsif verdict = 'appended' then
        insert into es.secrets (kind, owner, value) values (s_kind[s], s_owner[s], s_value[s])
          on conflict (kind, owner) do update set value = excluded.value;
      end if;
      s := s + 1;
    end loop;

    if verdict = 'appended' then
      for j in e .. until - 1 loop
        last := last + 1;
        chain := sha256(chain || es.framed(int8send(last)) || es.framed(uuid_send(e_stream[j])) || es.framed(int4send(e_version[j]))
          || es.framed(convert_to(e_topic[j], 'UTF8')) || es.framed(int4send(e_schema[j])) || es.framed(e_state[j])
          || es.framed(k_meta[i]) || es.framed(uuid_send(e_id[j])) || micros);
        if together then
          positions[j] := last;
          hashes[j] := chain;
        else
          insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
            values (last, e_stream[j], e_version[j], e_topic[j], e_schema[j], e_state[j], k_meta[i], e_id[j], stamp, chain);
        end if;
        if e_version[j] = 1 then
          insert into es.streams (stream, version, first, newest) values (e_stream[j], 1, last, last);
        elsif j = until - 1 or e_stream[j + 1] <> e_stream[j] then
          update es.streams v set version = e_version[j], newest = last where v.stream = e_stream[j];
        end if;
        if e_topic[j] = 'ClassificationPlanned' then
          perform ops.open_plan(e_stream[j], ops.as_json(e_state[j]));
        elsif e_topic[j] in ('ClassificationCancelled', 'ClassificationCompleted', 'ClassificationFailed', 'ClassificationDeleted') then
          delete from ops.open_chunks o where o.job = e_stream[j];
        end if;
      end loop;
      if cardinality(jobs) > 0 then
        delete from ops.open_chunks o using unnest(jobs, numbers) as judged (job, number)
          where o.job = judged.job and o.number = judged.number;
      end if;
      insert into es.commands (id, digest, subject, position, recorded_at) values (k_id[i], k_digest[i], k_subject[i], last, stamp);
      outcome := verdict;
      position := last;
      subject := k_subject[i];
    else
      outcome := verdict;
      position := known.position;
      subject := known.subject;
    end if;
    e := until;
    detail := why;
    return next;
  end loop;

  if together then
    insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
      select n.position, n.stream, n.version, n.topic, n.schema, n.state, k_meta[n.cmd], n.id, stamp, n.hash
        from unnest(positions, e_cmd, e_stream, e_version, e_topic, e_schema, e_state, e_id, hashes)
          as n (position, cmd, stream, version, topic, schema, state, id, hash)
        where n.position is not null;
  end if;
  if last > head.position then
    update es.head h set position = last, hash = chain;
    if current_setting('bioscope.wakes', true) is distinct from 'after_commit' then
      perform pg_notify('bioscope_appended', last::text);
    end if;
    if to_regclass('es.' || es.partition_name(es.partition_number(last + es.partition_size() / 2))) is null then
      call es.prepare_partitions_unless_locked(last + es.partition_size() / 2);
    end if;
  end if;
  perform set_config('es.appending', '', true);
end $function$;

CREATE OR REPLACE FUNCTION es.use_refresh_token(token_digest bytea, at timestamp with time zone)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  update es.refresh_tokens t set used_at = at where t.digest = token_digest and t.used_at is null and t.expires_at > at;
  return found;
end $function$;

CREATE OR REPLACE FUNCTION ops.tally()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  added  constant text := 'select dataset_id, created_at, confidence, value, 1 as way from added where not hidden';
  gone   constant text := 'select dataset_id, created_at, confidence, value, -1 as way from gone where not hidden';
begin
  execute format(
    'insert into %I.tallies as t (dataset_id, minute, count, micros, measured)
      select dataset_id, date_bin(''1 minute'', created_at, ''2000-01-01 00:00Z''), sum(way), sum(way * round(confidence * 1000000)::bigint),
        coalesce(sum(way) filter (where value is not null), 0)
      from (%s) changed group by 1, 2
      on conflict (dataset_id, minute) do update
        set count = t.count + excluded.count, micros = t.micros + excluded.micros, measured = t.measured + excluded.measured',
    tg_table_schema,
    case tg_op when 'INSERT' then added when 'DELETE' then gone else added || ' union all ' || gone end
  );
  return null;
end $function$;

CREATE OR REPLACE FUNCTION ops.log_hash(at bigint)
 RETURNS bytea
 LANGUAGE sql
 STABLE
AS $function$
  select case when at = 0 then sha256('bioscope') else (select e.hash from es.event_at(at) e) end
$function$;

CREATE OR REPLACE FUNCTION ops.advance(was bigint, was_generation bigint, becomes bigint, becomes_hash bytea, at_cluster text, at_offset bigint, generations integer)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
begin
  update checkpoint
    set position = becomes, hash = becomes_hash,
        cluster = coalesce(at_cluster, cluster), next_offset = coalesce(at_offset, next_offset),
        generation = generation + generations
    where projection = 'main' and position = was and generation = was_generation;
  if not found then
    raise exception 'the checkpoint was moved by somebody else' using errcode = 'BS001';
  end if;
  if becomes_hash is distinct from ops.log_hash(becomes) then
    raise exception 'the log does not hold this event at position %', becomes using errcode = 'BS002';
  end if;
  if current_schema() = 'read' then
    if current_setting('bioscope.wakes', true) is distinct from 'after_commit' then perform pg_notify('bioscope_projected', becomes::text); end if;
  end if;
end $function$;

CREATE OR REPLACE FUNCTION ops.sha1(message bytea)
 RETURNS bytea
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  mask   constant bigint := 4294967295;
  padded bytea := message || '\x80'::bytea
    || decode(repeat('00', (119 - octet_length(message) % 64) % 64), 'hex') || int8send(octet_length(message) * 8::bigint);
  h0 bigint := 1732584193; h1 bigint := 4023233417; h2 bigint := 2562383102; h3 bigint := 271733878; h4 bigint := 3285377520;
  a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; x bigint;
  w bigint[];
begin
  for block in 0 .. octet_length(padded) / 64 - 1 loop
    for i in 0 .. 15 loop
      w[i] := (get_byte(padded, block * 64 + i * 4)::bigint << 24) | (get_byte(padded, block * 64 + i * 4 + 1) << 16)
        | (get_byte(padded, block * 64 + i * 4 + 2) << 8) | get_byte(padded, block * 64 + i * 4 + 3);
    end loop;
    for i in 16 .. 79 loop
      x := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
      w[i] := ((x << 1) | (x >> 31)) & mask;
    end loop;
    a := h0; b := h1; c := h2; d := h3; e := h4;
    for i in 0 .. 79 loop
      if i < 20 then
        f := (b & c) | ((~b & mask) & d); k := 1518500249;
      elsif i < 40 then
        f := b # c # d; k := 1859775393;
      elsif i < 60 then
        f := (b & c) | (b & d) | (c & d); k := 2400959708;
      else
        f := b # c # d; k := 3395469782;
      end if;
      x := ((((a << 5) | (a >> 27)) & mask) + f + e + k + w[i]) & mask;
      e := d; d := c; c := ((b << 30) | (b >> 2)) & mask; b := a; a := x;
    end loop;
    h0 := (h0 + a) & mask; h1 := (h1 + b) & mask; h2 := (h2 + c) & mask; h3 := (h3 + d) & mask; h4 := (h4 + e) & mask;
  end loop;
  return substr(int8send(h0), 5) || substr(int8send(h1), 5) || substr(int8send(h2), 5) || substr(int8send(h3), 5) || substr(int8send(h4), 5);
end $function$;

CREATE OR REPLACE FUNCTION ops.chunk_stream(job uuid, number integer)
 RETURNS uuid
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  name bytea := substr(ops.sha1(uuid_send(job) || convert_to('chunk/' || number, 'UTF8')), 1, 16);
begin
  name := set_byte(name, 6, (get_byte(name, 6) & 15) | 80);
  name := set_byte(name, 8, (get_byte(name, 8) & 63) | 128);
  return encode(name, 'hex')::uuid;
end $function$;

CREATE OR REPLACE FUNCTION ops.chunk_size(images integer)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN LEAST(64, GREATEST(8, ((images + 7) / 8)));

CREATE OR REPLACE FUNCTION ops.as_json(state bytea)
 RETURNS json
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN (convert_from(state, 'UTF8'::name))::json;

CREATE OR REPLACE FUNCTION ops.open_plan(of_job uuid, plan json)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  request json;
  size    integer := ops.chunk_size(json_array_length(plan -> 'images'));
  labels  text[];
begin
  select ops.as_json(e.state) into request from es.streams s, es.event_at(s.first) e
    where s.stream = of_job and e.topic = 'ClassificationRequested';
  if request is null then
    return;
  end if;
  if request ->> 'external' = 'true' then
    labels := ops.external_labels((request ->> 'model_id')::uuid, request ->> 'model_version', request ->> 'model_sha256');
  end if;
  insert into ops.open_chunks (job, number, dataset_id, model_name, model_version, model_sha256, images, sha256, labels, threshold)
    select of_job, (plan ->> 'first_chunk')::integer + (one.place - 1) / size, (request ->> 'dataset_id')::uuid, request ->> 'model_name',
      (request ->> 'model_version')::integer, request ->> 'model_sha256',
      array_agg((one.image ->> 'id')::uuid order by one.place), array_agg(one.image ->> 'sha256' order by one.place),
      labels, case when labels is not null then (request ->> 'threshold')::float8 end
    from json_array_elements(plan -> 'images') with ordinality as one (image, place)
    group by (one.place - 1) / size
    on conflict do nothing;
end $function$;

CREATE OR REPLACE PROCEDURE ops.fill_open_chunks()
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $procedure$
declare
  part record;
begin
  perform from es.head for update;                     -- nothing is appended meanwhile
  delete from ops.open_chunks;
  for part in
    select p.originator_id as job, p.state from es.events p where p.topic = 'ClassificationPlanned' and not exists (
      select from es.events x where x.originator_id = p.originator_id
        and x.topic in ('ClassificationCancelled', 'ClassificationCompleted', 'ClassificationFailed', 'ClassificationDeleted'))
  loop
    perform ops.open_plan(part.job, ops.as_json(part.state));
  end loop;
  delete from ops.open_chunks c where exists (select from es.streams s where s.stream = ops.chunk_stream(c.job, c.number));
end $procedure$;

CREATE OR REPLACE FUNCTION ops.check_judgement(stream uuid, version integer, state bytea, OUT why text, OUT job uuid, OUT number integer)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  judged   record;
  chunk    ops.open_chunks;
  labels   text[];
  named    uuid[];
  foreign_sha256 boolean;
  wrong_label    boolean;
  wrong_score    boolean;
  wrong_verdict  boolean;
  more           boolean;                              -- than an external classifier gives
  repeated       boolean;
  computed       boolean;
begin
  select * into judged from json_to_record(ops.as_json(state)) as x (
    job_id uuid, number integer, dataset_id uuid, model_name text, model_version integer, labels json, results json, failures json,
    provenance json);
  job := judged.job_id;
  number := judged.number;
  select * into chunk from ops.open_chunks c where c.job = judged.job_id and c.number = judged.number;
  if chunk.job is null then
    why := 'the chunk was not planned, or its job has ended';
    return;
  end if;
  if stream is distinct from ops.chunk_stream(job, number) or version <> 1 then
    why := 'the event is not in the stream of its chunk';
    return;
  end if;
  if (chunk.dataset_id, chunk.model_name, chunk.model_version)
    is distinct from (judged.dataset_id, judged.model_name, judged.model_version) then
    why := 'the dataset or the model is not that of the job';
    return;
  end if;
  if judged.provenance is not null and judged.provenance ->> 'model_sha256' is distinct from chunk.model_sha256 then
    why := 'the sha256 of the model is not that of the job';
    return;
  end if;
  if chunk.labels is not null and judged.provenance is not null and judged.provenance ->> 'runtime' is distinct from 'external' then
    why := 'the results are not those of an external classifier';
    return;
  end if;

  labels := array(select json_array_elements_text(judged.labels));
  select array_agg(r.image_id),
      bool_or(planned.id is null),
      bool_or(not coalesce(r.label = any (labels)
        and cardinality(n.scores) = case when chunk.labels is null then cardinality(labels) else 0 end, false)),
      bool_or(not coalesce(
        translate(r.confidence::text, '0123456789eE+-.', '') = '' and translate(r.scores::text, '0123456789eE+-., ', '') = '[]'
        and r.confidence::text::float8 between 0 and 1 and 0 <= all (n.scores) and 1 >= all (n.scores), false)),
      bool_or(r.verdict is distinct from case when translate(r.confidence::text, '0123456789eE+-.', '') <> '' then ''
        when r.confidence::text::float8 < chunk.threshold then 'needs_review' else 'clear' end),
      bool_or(r.value is not null or r.reused is not null),
      bool_or(r.reused is not null), bool_or(r.reused is null)
    into named, foreign_sha256, wrong_label, wrong_score, wrong_verdict, more, repeated, computed
    from json_to_recordset(judged.results)
      as r (image_id uuid, sha256 text, label text, confidence json, scores json, verdict text, value json, reused json)
    cross join lateral (select translate(r.scores::text, '[]', '{}')::float8[] offset 0) as n (scores)
    left join (select distinct p.id, p.sha256 from unnest(chunk.images, chunk.sha256) as p (id, sha256)) planned
      on planned.id = r.image_id and planned.sha256 = r.sha256;
  named := coalesce(named, '{}') || array(select (f ->> 'image_id')::uuid from json_array_elements(judged.failures) f);
  why := case
    when not named <@ chunk.images then 'an image is not in the chunk'
    when cardinality(named) <> (select count(distinct n) from unnest(named) n) then 'an image is answered for twice'
    when foreign_sha256 then 'the sha256 of an image is not the planned one'
    when computed and judged.provenance is null then 'nothing says what computed the results'
    when chunk.labels is not null and more is not null and labels is distinct from chunk.labels
      then 'the labels are not those of the version'
    when wrong_label then 'a result does not fit the labels'
    when wrong_score then 'a score is not a number between 0 and 1'
    when repeated and judged.provenance is not null then 'a repeated result names what computed it'
    when repeated and (ops.writer()).role = 'bioscope_inference' then 'only the scheduler repeats earlier results'
    when chunk.labels is not null and more then 'an external classifier gives a label and a confidence'
    when chunk.labels is not null and wrong_verdict then 'a verdict does not follow from the threshold'
  end;
end $function$;

CREATE OR REPLACE FUNCTION ops.check_inspection(stream uuid, state bytea, upload bytea)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  topics   text[];
  uploaded text;
begin
  if upload is not null then
    uploaded := ops.as_json(upload) ->> 'sha256';
  else
    select array_agg(e.topic), min(ops.as_json(e.state) ->> 'sha256') filter (where e.topic = 'ImageUploaded') into topics, uploaded
      from es.stream_events(stream, 0) e;
  end if;
  return case
    when uploaded is null then 'the image was not uploaded'
    when 'ImageDeleted' = any (topics) then 'the image was deleted'
    when topics && '{ImageAccepted,ImageRejected,ImageReinspected}' then 'the image was inspected before'
    when ops.as_json(state) ->> 'sha256' <> uploaded then 'the inspected sha256 is not the uploaded one'
  end;
end $function$;

CREATE OR REPLACE FUNCTION ops.writer()
 RETURNS ops.writers
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  found_one ops.writers;
begin
  select * into found_one from ops.writers w where w.role = session_user;
  if found_one.role is null then
    select w.* into found_one from ops.writers w left join pg_roles r on r.rolname = w.role
      where w.role = 'bioscope_app' or pg_has_role(session_user, r.oid, 'member')
      order by w.role = 'bioscope_app' and (r.oid is null or not pg_has_role(session_user, r.oid, 'member')),
        w.role = 'bioscope_app' desc, cardinality(w.topics) desc
      limit 1;
  end if;
  return found_one;
end $function$;

CREATE OR REPLACE FUNCTION ops.is_live(seen_at timestamp with time zone)
 RETURNS boolean
 LANGUAGE sql
 STABLE
RETURN ((seen_at >= (clock_timestamp() - '00:00:30'::interval)) AND (seen_at <= (clock_timestamp() + '00:00:30'::interval)));

CREATE OR REPLACE FUNCTION ops.declare_capabilities(of_id uuid, of_kind text, of_process text, of_release text, of_types text[], of_versions integer[], of_paused text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if cardinality(of_types) > 500 or cardinality(of_types) is distinct from cardinality(of_versions)
    or octet_length(of_types::text) > 65536 then
    raise exception 'a process can declare at most 500 types of events, each with a version' using errcode = 'BS003';
  end if;
  update ops.capabilities c
    set types = of_types, versions = of_versions, paused = left(of_paused, 500), seen_at = clock_timestamp()
    where c.id = of_id and c.role = session_user and not c.seen_at between clock_timestamp() - interval '1 s' and clock_timestamp();
  if found or exists (select from ops.capabilities c where c.id = of_id) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('ops.capabilities'));
  delete from ops.capabilities c where not ops.is_live(c.seen_at);
  delete from ops.capabilities c where c.id in (
    select o.id from ops.capabilities o where o.role = session_user order by o.seen_at desc offset 63);
  insert into ops.capabilities (id, role, kind, process, release, types, versions, paused, seen_at)
    values (of_id, session_user, left(of_kind, 20), left(of_process, 100), left(of_release, 40), of_types, of_versions,
      left(of_paused, 500), clock_timestamp())
    on conflict do nothing;
end $function$;

CREATE OR REPLACE FUNCTION ops.withdraw_capabilities(of_id uuid)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
BEGIN ATOMIC
 DELETE FROM ops.capabilities c
   WHERE ((c.id = withdraw_capabilities.of_id) AND (c.role = SESSION_USER));
END;

CREATE OR REPLACE FUNCTION ops.begin_to_write(of_topic text, of_version integer)
 RETURNS text
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  writer   ops.writers := ops.writer();
  lacking  text;
begin
  if exists (select from ops.written_types w where w.topic = of_topic and w.schema_version = of_version)
    or not (of_topic = any (writer.topics) or '*' = any (writer.topics)) or length(of_topic) > 100 or of_version not between 1 and 1000 then
    return null;
  end if;
  select format('%s %s (release %s)', c.kind, c.process, c.release) into lacking from ops.capabilities c
    where ops.is_live(c.seen_at) and not exists (
      select from unnest(c.types, c.versions) known (topic, newest) where known.topic = of_topic and known.newest >= of_version)
    order by c.seen_at desc limit 1;
  if lacking is null then
    insert into ops.written_types (topic, schema_version) values (of_topic, of_version) on conflict do nothing;
  end if;
  return lacking;
end $function$;

CREATE OR REPLACE FUNCTION es.partition_size()
 RETURNS bigint
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN 16777216;

CREATE OR REPLACE FUNCTION es.partition_number(at bigint)
 RETURNS bigint
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN (at / es.partition_size());

CREATE OR REPLACE FUNCTION es.partition_name(number bigint)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN ('events_'::text || lpad((number)::text, GREATEST(4, length((number)::text)), '0'::text));

CREATE OR REPLACE PROCEDURE es.protect_partition(IN name text)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $procedure$
begin
  execute format('create trigger append_only before insert or update or delete or truncate on es.%I
    for each statement execute function es.refuse_directly()', name);
end $procedure$;

CREATE OR REPLACE PROCEDURE es.add_partition(IN number bigint)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $procedure$
declare
  name text := es.partition_name(number);
begin
  execute format('create table es.%I (like es.events including defaults including constraints including storage)', name);
  execute format('alter table es.%I add unique (originator_id, originator_version)', name);
  execute format('alter table es.events attach partition es.%I for values from (%s) to (%s)',
    name, number * es.partition_size(), (number + 1) * es.partition_size());
  call es.protect_partition(name);
end $procedure$;

CREATE OR REPLACE PROCEDURE es.prepare_partitions(IN upto bigint)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $procedure$
declare
  newest bigint := es.partition_number(upto);
begin
  while to_regclass(format('es.%I', es.partition_name(newest))) is null loop
    newest := newest - 1;
    if newest < 0 then
      raise exception 'es.events has no partition';
    end if;
  end loop;
  for number in newest + 1 .. es.partition_number(upto) loop
    call es.add_partition(number);
  end loop;
end $procedure$;

CREATE OR REPLACE PROCEDURE es.prepare_partitions_unless_locked(IN upto bigint)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $procedure$
begin
  lock table es.events in share update exclusive mode nowait;
  call es.prepare_partitions(upto);
exception when lock_not_available then
  null;
end $procedure$;

CREATE OR REPLACE PROCEDURE es.fill_streams()
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET work_mem TO '64MB'
AS $procedure$
begin
  perform from es.head for update;                     -- nothing is appended meanwhile
  delete from es.streams;
  insert into es.streams (first, newest, stream, version)
    select min(e.notification_id), max(e.notification_id), e.originator_id, max(e.originator_version) from es.events e group by e.originator_id;
end $procedure$;

CREATE OR REPLACE FUNCTION es.event_at(at bigint)
 RETURNS SETOF es.events
 LANGUAGE plpgsql
 STABLE ROWS 1
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
begin
  return query select e.* from es.events e where e.notification_id = at;
end $function$;

CREATE OR REPLACE FUNCTION es.stream_events(of_stream uuid, after integer)
 RETURNS SETOF es.events
 LANGUAGE plpgsql
 STABLE ROWS 10
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
declare
  known es.streams;
begin
  select * into known from es.streams s where s.stream = of_stream;
  return query select e.* from es.events e
    where e.originator_id = of_stream and e.originator_version > after and e.notification_id between known.first and known.newest
    order by e.originator_version;
end $function$;

CREATE OR REPLACE FUNCTION es.stream_holds(known es.streams, topics text[])
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
begin
  return exists (select from (
      select e.topic from es.events e
        where e.originator_id = known.stream and e.originator_version between 1 and known.version
          and e.notification_id between known.first and known.newest
        order by e.originator_version desc
    ) v where v.topic = any (topics));
end $function$;

CREATE OR REPLACE FUNCTION es.page_range(table_name regclass, first_page bigint, pages bigint, OUT first_row tid, OUT beyond tid, OUT next_page bigint)
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
BEGIN ATOMIC
 SELECT (format('(%s,0)'::text, GREATEST(first_page, (0)::bigint)))::tid AS format,
     (format('(%s,0)'::text, (GREATEST(first_page, (0)::bigint) + pages)))::tid AS format,
         CASE
             WHEN (((GREATEST(first_page, (0)::bigint) + pages) * (current_setting('block_size'::text))::bigint) < pg_relation_size(table_name)) THEN (GREATEST(first_page, (0)::bigint) + pages)
             ELSE NULL::bigint
         END AS "case";
END;

CREATE OR REPLACE FUNCTION es.prune_commands(first_page bigint, OUT removed bigint, OUT next_page bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  part record := es.page_range('es.commands', first_page, 128);
begin
  delete from es.commands c where c.ctid >= part.first_row and c.ctid < part.beyond
    and c.recorded_at < now() - case when c.digest is null then interval '1 day' else interval '30 days' end;
  get diagnostics removed = row_count;
  next_page := part.next_page;
end $function$;

CREATE OR REPLACE FUNCTION es.prune_refresh_tokens(first_page bigint, OUT removed bigint, OUT next_page bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  part record := es.page_range('es.refresh_tokens', first_page, 128);
begin
  delete from es.refresh_tokens t where t.ctid >= part.first_row and t.ctid < part.beyond and not exists (
    select from es.refresh_tokens o where o.session_id = t.session_id and o.expires_at > now() - interval '1 day');
  get diagnostics removed = row_count;
  next_page := part.next_page;
end $function$;

CREATE OR REPLACE PROCEDURE ops.create_read_models(IN target text)
 LANGUAGE plpgsql
AS $procedure$
begin
  execute format('create schema %I', target);
  perform set_config('search_path', target, true);

  -- ---- the engine ------------------------------------------------------------------------------------------------------------------
  create table checkpoint (
    projection  text   primary key,
    position    bigint not null,
    cluster     text   not null,
    next_offset bigint not null,
    generation  bigint not null,
    hash        bytea  not null default sha256('bioscope')
  ) with (fillfactor = 10);
  insert into checkpoint values ('main', 0, '', 0, (extract(epoch from clock_timestamp()) * 1000)::bigint);
  comment on table checkpoint is 'The position up to which the read models show the log. One row.';
  comment on column checkpoint.projection is 'Always main.';
  comment on column checkpoint.position is 'Position of the last event that was applied.';
  comment on column checkpoint.cluster is 'Kafka cluster in which next_offset counts; empty if none is known.';
  comment on column checkpoint.next_offset is 'Offset of the next record in the topic bioscope.events.';
  comment on column checkpoint.generation is 'Rises when another process than the projector changes rows.';
  comment on column checkpoint.hash is 'Hash of the event at this position, as the log has it.';

  create table folds (
    name    text    primary key,
    version integer not null
  );
  comment on table folds is 'The fold version by which each table was filled.';
  comment on column folds.name is 'Name of the table.';
  comment on column folds.version is 'Its fold version.';

  create table dead_letters (
    position bigint      primary key,
    stream   uuid        not null,
    type     text        not null,
    reason   text        not null,
    at       timestamptz not null default now()
  );
  comment on table dead_letters is 'Events that could not be applied.';
  comment on column dead_letters.position is 'Position of the event.';
  comment on column dead_letters.stream is 'Stream of the event.';
  comment on column dead_letters.type is 'Type of the event.';
  comment on column dead_letters.reason is 'Error of the last attempt, without private data.';
  comment on column dead_letters.at is 'Time of the last attempt.';

  create table parked (
    position bigint primary key,
    stream   uuid   not null
  );
  comment on table parked is 'Events that wait until a dead letter is resolved.';
  comment on column parked.position is 'Position of the event.';
  comment on column parked.stream is 'Stream of the event.';

  -- ---- accounts --------------------------------------------------------------------------------------------------------------------
  create table users (
    id            uuid        primary key,
    version       integer     not null,
    email         text        not null,
    username      text        not null,
    first_name    text        not null,
    last_name     text        not null,
    role          text        not null,
    status        text        not null,
    institution   text,
    department    text,
    phone         text,
    registered_at timestamptz not null,
    deleted       boolean     not null,
    erased        boolean     not null
  );
  create index users_listed on users (registered_at, id) where not deleted;
  comment on table users is 'Accounts of people.';
  comment on column users.version is 'Version of the stream.';
  comment on column users.email is 'E-mail address for signing in.';
  comment on column users.role is 'viewer, analyst, researcher or admin.';
  comment on column users.status is 'active, inactive, suspended or pending.';
  comment on column users.deleted is 'The account is closed.';
  comment on column users.erased is 'The data key was destroyed; private fields read [erased].';

  create table registrations (
    id           uuid        primary key,
    requested_at timestamptz not null
  );
  create index registrations_oldest on registrations (requested_at, id);
  comment on table registrations is 'Registrations whose address is not verified yet.';

  create table invitations (
    id         uuid        primary key,
    version    integer     not null,
    email      text,
    role       text        not null,
    invited_by uuid        not null,
    invited_at timestamptz not null,
    sent_at    timestamptz not null,
    status     text        not null,
    user_id    uuid
  );
  create index invitations_newest on invitations (invited_at, id);
  comment on table invitations is 'Invitations to create an account.';
  comment on column invitations.version is 'Version of the stream.';
  comment on column invitations.email is 'Address of the person; null once the invitation was accepted or withdrawn.';
  comment on column invitations.role is 'Role of the account: viewer, analyst, researcher or admin.';
  comment on column invitations.invited_by is 'Refers to users.';
  comment on column invitations.sent_at is 'When it was last sent.';
  comment on column invitations.status is 'open, accepted or withdrawn.';
  comment on column invitations.user_id is 'Account that was created; null before. Refers to users.';

  create table service_accounts (
    id         uuid        primary key,
    version    integer     not null,
    name       text        not null,
    created_by uuid        not null,
    created_at timestamptz not null,
    deleted    boolean     not null
  );
  create index service_accounts_listed on service_accounts (created_at, id) where not deleted;
  comment on table service_accounts is 'Accounts of programs.';
  comment on column service_accounts.version is 'Version of the stream.';
  comment on column service_accounts.created_by is 'Refers to users.';

  create table api_keys (
    id          uuid        primary key,
    version     integer     not null,
    owner_id    uuid        not null,
    owner_kind  text        not null,
    scopes      text[]      not null,
    dataset_ids uuid[],
    issued_by   uuid        not null,
    issued_at   timestamptz not null,
    expires_at  timestamptz not null,
    revoked_at  timestamptz
  );
  create index api_keys_newest on api_keys (issued_at, id);
  create index api_keys_of_owner on api_keys (owner_id, issued_at, id);
  comment on table api_keys is 'Keys of programs: of service accounts, and of users. Names are in the log only.';
  comment on column api_keys.version is 'Version of the stream.';
  comment on column api_keys.owner_id is 'Service account or user.';
  comment on column api_keys.owner_kind is 'service or user.';
  comment on column api_keys.scopes is 'What the key allows.';
  comment on column api_keys.dataset_ids is 'Datasets that the key reaches; null for all of its owner.';
  comment on column api_keys.issued_by is 'Refers to users.';
  comment on column api_keys.revoked_at is 'When it was revoked; null for a key that was not.';

  create table teams (
    id         uuid        primary key,
    version    integer     not null,
    name       text        not null,
    owner_id   uuid        not null,
    created_at timestamptz not null,
    deleted    boolean     not null
  );
  create index teams_listed on teams (created_at, id) where not deleted;
  comment on table teams is 'Teams.';
  comment on column teams.version is 'Version of the stream.';
  comment on column teams.owner_id is 'User who manages the team. Refers to users.';

  create table team_members (
    team   uuid not null,
    member uuid not null,
    primary key (team, member)
  );
  create index team_members_of on team_members (member);
  comment on table team_members is 'Members of teams.';
  comment on column team_members.team is 'Refers to teams.';
  comment on column team_members.member is 'Refers to users.';

  -- ---- datasets --------------------------------------------------------------------------------------------------------------------
  create table datasets (
    id          uuid        primary key,
    version     integer     not null,
    name        text        not null,
    description text,
    owner_id    uuid        not null,
    created_at  timestamptz not null,
    deleted     boolean     not null
  );
  create index datasets_newest on datasets (created_at, id) where not deleted;
  comment on table datasets is 'Datasets. Their images and results have their grants.';
  comment on column datasets.version is 'Version of the stream.';
  comment on column datasets.owner_id is 'Owner. Refers to users.';

  create table dataset_access (
    subject uuid not null,
    dataset uuid not null,
    role    text not null,
    primary key (subject, dataset)
  );
  create index dataset_access_of on dataset_access (dataset);
  comment on table dataset_access is 'Grants on datasets. All administrators share one subject, with one row for each dataset.';
  comment on column dataset_access.subject is 'User or team that has the grant, or the subject of administrators. Refers to users.';
  comment on column dataset_access.dataset is 'Refers to datasets.';
  comment on column dataset_access.role is 'Grant: viewer, analyst, editor or owner.';

  create table effective_access (
    subject uuid not null,
    dataset uuid not null,
    role    text not null,
    primary key (subject, dataset)
  );
  comment on table effective_access is 'What each subject may do with datasets: the highest of its own grant and those of its teams. Triggers write it.';
  comment on column effective_access.subject is 'User or team, the subject of administrators, or an API key that is limited to datasets.';
  comment on column effective_access.dataset is 'Refers to datasets.';
  comment on column effective_access.role is 'Grant: viewer, analyst, editor or owner.';
  create trigger access_added after insert on dataset_access
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on dataset_access
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on dataset_access
    referencing old table as changed for each statement execute function ops.follow_access();
  create trigger access_added after insert on team_members
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on team_members
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on team_members
    referencing old table as changed for each statement execute function ops.follow_access();
  create trigger access_added after insert on teams
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on teams
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on teams
    referencing old table as changed for each statement execute function ops.follow_access();
  create trigger access_added after insert on api_keys
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on api_keys
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on api_keys
    referencing old table as changed for each statement execute function ops.follow_access();

  create view visible as
    select a.subject, a.dataset, a.role from effective_access a join datasets d on d.id = a.dataset where not d.deleted;
  comment on view visible is 'Effective grants on datasets that are not deleted. Every query of users joins it.';

  -- ---- images and devices ----------------------------------------------------------------------------------------------------------
  create table images (
    id              uuid        primary key,
    version         integer     not null,
    dataset_id      uuid        not null,
    device_id       uuid,
    filename        text        not null collate "C",
    sha256          text        not null,
    size            bigint      not null,
    media_type      text        not null,
    width           integer     not null,
    height          integer     not null,
    bands           integer,
    dtype           text,
    pages           integer,
    axes            text,
    pixel_size_um   double precision,
    uploaded_by     uuid        not null,
    uploaded_at     timestamptz not null,
    analyzed        boolean     not null,
    accepted        boolean     not null,
    rejected        text,
    rejected_detail text,
    deleted         boolean     not null,
    position        bigint      not null,
    path            text,
    reader          integer,
    warnings        jsonb       not null default '[]'
  ) with (fillfactor = 85);
  create index images_newest_of_all on images (uploaded_at, id) where not deleted;
  create index images_newest on images (dataset_id, uploaded_at, id) where not deleted;
  create index images_named on images (dataset_id, filename, id) where not deleted;
  create index images_planned on images (dataset_id, position) where not deleted and rejected is null;
  create index images_of_blob on images using hash (sha256) where not deleted;
  create index images_of_device on images (device_id, uploaded_at, id) where not deleted and device_id is not null;
  comment on table images is 'Uploaded images.';
  comment on column images.version is 'Version of the stream.';
  comment on column images.dataset_id is 'Refers to datasets.';
  comment on column images.device_id is 'Device that took the image. Refers to devices.';
  comment on column images.filename is 'File name without folders, in Unicode NFC.';
  comment on column images.sha256 is 'SHA-256 of the file in hexadecimal; names the blob.';
  comment on column images.size is 'Bytes of the file.';
  comment on column images.width is 'Pixels; as the file header claims, until the image is accepted.';
  comment on column images.height is 'Pixels; as the file header claims, until the image is accepted.';
  comment on column images.bands is 'Bands of a pixel; null before the inspection.';
  comment on column images.dtype is 'Number format of a band, such as uint16; null before the inspection.';
  comment on column images.pages is 'Pages in the main chain of the file; null before the inspection.';
  comment on column images.axes is 'Axes from slowest to fastest, such as YXS; null before the inspection.';
  comment on column images.pixel_size_um is 'Edge of a pixel in micrometres; null if the file does not state it.';
  comment on column images.uploaded_by is 'Refers to users.';
  comment on column images.analyzed is 'A model was run on the image, or a user marked it so.';
  comment on column images.accepted is 'The whole file was decoded.';
  comment on column images.rejected is 'Code of the reason for a rejection; null if there was none.';
  comment on column images.rejected_detail is 'The reason in a sentence.';
  comment on column images.position is 'Position of the upload. A job covers the images before its own position.';
  comment on column images.path is 'Path below the uploaded folder; null if none was sent.';
  comment on column images.reader is 'Reader version that decoded the file; null before the inspection.';
  comment on column images.warnings is 'List of {code, detail}: what in the file was ignored, assumed or converted.';

  create table devices (
    id               uuid        primary key,
    version          integer     not null,
    name             text        not null,
    hostname         text        not null,
    location         text,
    firmware_version text,
    registered_at    timestamptz not null,
    online           boolean     not null,
    last_seen        timestamptz,
    removed          boolean     not null
  );
  comment on table devices is 'Microscopes and cameras.';
  comment on column devices.version is 'Version of the stream.';
  comment on column devices.last_seen is 'Time when the device last came online. Later heartbeats: ops.devices_seen.';

  -- ---- models and jobs -------------------------------------------------------------------------------------------------------------
  create table models (
    id          uuid        primary key,
    version     integer     not null,
    name        text        not null,
    description text        not null,
    versions    jsonb       not null,
    aliases     jsonb       not null,
    created_at  timestamptz not null,
    retired     boolean     not null,
    promoters   uuid[],
    promoter_teams uuid[]
  );
  comment on table models is 'Models and their versions.';
  comment on column models.version is 'Version of the stream.';
  comment on column models.versions is 'List of {number, sha256, size, labels, review_below, added_at, added_by, digest, package, kind, label_texts, release, unit, description, checks}.';
  comment on column models.aliases is 'Number of a version by alias, such as production.';
  comment on column models.retired is 'The model accepts no new jobs.';
  comment on column models.promoters is 'Users who may move its aliases and retire it; null if there are none. Refers to users.';
  comment on column models.promoter_teams is 'Teams whose members may do so; null if there are none. Refers to teams.';

  create table model_checks (
    id           uuid        primary key,
    version      integer     not null,
    status       text        not null,
    requested_by uuid        not null,
    requested_at timestamptz not null,
    filename     text,
    sha256       text        not null,
    size         bigint,
    model_id     uuid,
    model_name   text,
    number       integer,
    answered_at  timestamptz,
    report       jsonb,
    code         text,
    detail       text,
    file         text,
    field        text
  );
  create index model_checks_newest on model_checks (requested_at, id);
  create index model_checks_of on model_checks (requested_by, requested_at, id);
  comment on table model_checks is 'Checks of uploaded model packages, and of versions again.';
  comment on column model_checks.version is 'Version of the stream.';
  comment on column model_checks.status is 'pending, passed or failed.';
  comment on column model_checks.requested_by is 'Refers to users.';
  comment on column model_checks.filename is 'Name of the uploaded file; null for a test of a known version.';
  comment on column model_checks.sha256 is 'SHA-256 of the package in hexadecimal; names the blob.';
  comment on column model_checks.size is 'Bytes of the package; null for a test of a known version.';
  comment on column model_checks.model_id is 'Model to which the package belongs, once that is known. Refers to models.';
  comment on column model_checks.number is 'Number of the version.';
  comment on column model_checks.answered_at is 'Time of the answer; null while the check is pending.';
  comment on column model_checks.report is 'What the check measured; null unless it passed.';
  comment on column model_checks.code is 'Code of the reason why it failed.';
  comment on column model_checks.detail is 'The reason in a sentence.';
  comment on column model_checks.file is 'File of the package that is at fault; null if that is not one file.';
  comment on column model_checks.field is 'Field of the file that is at fault.';

  create table classifications (
    id            uuid             primary key,
    version       integer          not null,
    dataset_id    uuid             not null,
    image_id      uuid,
    model_id      uuid             not null,
    model_name    text             not null,
    model_version integer          not null,
    model_sha256  text             not null,
    threshold     double precision not null,
    created_by    uuid             not null,
    created_at    timestamptz      not null,
    updated_at    timestamptz      not null,
    status        text             not null,
    planned       boolean          not null,
    images        integer          not null,
    chunks        integer          not null,
    judged        integer          not null,
    succeeded     integer          not null,
    failed        integer          not null,
    reason        text,
    deleted       boolean          not null,
    position      bigint           not null,
    planes        jsonb,
    selected      uuid[],
    filter        jsonb,
    path          text,
    external      boolean          not null default false,
    priority      text             not null default 'normal',
    deadline      timestamptz,
    top_k         integer,
    fresh         boolean          not null default false,
    retry_of      uuid,
    started_at    timestamptz,
    last_result_at timestamptz
  ) with (fillfactor = 70);
  create index classifications_newest_of_all on classifications (created_at, id) where not deleted;
  create index classifications_newest on classifications (dataset_id, created_at, id) where not deleted;
  create index classifications_of_image on classifications (image_id) where image_id is not null;
  create index classifications_open on classifications (position) where status in ('pending', 'running') and not deleted;
  comment on table classifications is 'Jobs and their progress.';
  comment on column classifications.version is 'Version of the stream.';
  comment on column classifications.dataset_id is 'Dataset that the job covers, or that holds its image. Refers to datasets.';
  comment on column classifications.image_id is 'The only image of the job; null for a whole dataset. Refers to images.';
  comment on column classifications.model_id is 'Refers to models.';
  comment on column classifications.model_version is 'Number of the model version.';
  comment on column classifications.threshold is 'Confidence below which a result is to be reviewed.';
  comment on column classifications.created_by is 'Refers to users.';
  comment on column classifications.status is 'pending, running, completed, failed or cancelled.';
  comment on column classifications.planned is 'All parts of the plan are recorded.';
  comment on column classifications.images is 'Images in the plan.';
  comment on column classifications.chunks is 'Chunks in the plan.';
  comment on column classifications.judged is 'Chunks that have results.';
  comment on column classifications.succeeded is 'Images with a result.';
  comment on column classifications.failed is 'Images with a failure.';
  comment on column classifications.reason is 'Why the job failed.';
  comment on column classifications.position is 'Position of the request.';
  comment on column classifications.planes is 'Planes and channels that the caller chose: {z, c, t}; null if the model chooses.';
  comment on column classifications.selected is 'Images of the dataset that the caller listed; null if there is no list. Refers to images.';
  comment on column classifications.filter is 'What holds for the images that the job covers; null if nothing was asked.';
  comment on column classifications.path is 'Pattern for the relative path of the images; null if nothing was asked.';
  comment on column classifications.external is 'A program outside of the system classifies.';
  comment on column classifications.priority is 'low, normal or high: the order among the jobs of a person.';
  comment on column classifications.deadline is 'Time at which the job ends; null if it has none.';
  comment on column classifications.top_k is 'Scores that results show; null for all.';
  comment on column classifications.fresh is 'No earlier result is reused.';
  comment on column classifications.retry_of is 'Job whose failed images this one classifies again. Refers to classifications.';
  comment on column classifications.started_at is 'Time of the first part of the plan.';
  comment on column classifications.last_result_at is 'Time of the newest results.';

  create table work (
    id         uuid    primary key,
    kind       text    not null,
    job        uuid,
    number     integer,
    dataset_id uuid,
    images     jsonb   not null,
    position   bigint  not null
  );
  create index work_of_job on work (job, number) where job is not null;
  create index work_to_inspect on work (position) where kind = 'inspect';
  create index work_to_check on work (position) where kind = 'check';
  comment on table work is 'Work items: chunks to classify, images to inspect and models to check. The row is deleted when the work is done.';
  comment on column work.id is 'Id of the chunk, the image or the check.';
  comment on column work.kind is 'classify, inspect or check.';
  comment on column work.job is 'Job of a chunk. Refers to classifications.';
  comment on column work.number is 'Number of a chunk in its job.';
  comment on column work.dataset_id is 'Null for a check. Refers to datasets.';
  comment on column work.images is 'List of {id, sha256}.';
  comment on column work.position is 'Position of the plan, the upload or the request.';

  create table failures (
    id                uuid        primary key,
    classification_id uuid        not null,
    image_id          uuid        not null,
    dataset_id        uuid        not null,
    reason            text        not null,
    detail            text        not null,
    created_at        timestamptz not null
  );
  create index failures_of_job on failures (classification_id, created_at, id);
  comment on table failures is 'Images for which a job has no result.';
  comment on column failures.classification_id is 'Refers to classifications.';
  comment on column failures.image_id is 'Refers to images.';
  comment on column failures.dataset_id is 'Refers to datasets.';
  comment on column failures.reason is 'Code of the reason.';
  comment on column failures.detail is 'The reason in a sentence.';

  -- ---- results ---------------------------------------------------------------------------------------------------------------------
  create table results (
    id                uuid             primary key,
    classification_id uuid             not null,
    image_id          uuid             not null,
    dataset_id        uuid             not null,
    label             text             not null,
    confidence        double precision not null,
    verdict           text             not null,
    model_name        text             not null,
    model_version     integer          not null,
    scores            jsonb            not null,
    created_at        timestamptz      not null,
    hidden            boolean          not null,
    warnings          jsonb            not null default '[]',
    value             double precision,
    position          bigint           not null default 0,
    sha256            text             not null default '',
    device_id         uuid,
    reused            uuid,
    original          jsonb
  );
  create index results_newest on results (dataset_id, created_at, id)
    include (image_id, confidence, model_name, model_version, position) where not hidden;
  create index results_of_label on results (dataset_id, label, created_at, id) where not hidden;
  create index results_of_verdict on results (dataset_id, verdict, created_at, id) where not hidden and verdict <> 'clear';
  create index results_of_model on results (dataset_id, model_name, model_version) where not hidden;
  create index results_of_job on results (classification_id, created_at, id) include (dataset_id, confidence) where not hidden;
  create index results_of_image on results (image_id, model_name, position) include (hidden);
  comment on table results is 'Results: one for each image of a job.';
  comment on column results.classification_id is 'Refers to classifications.';
  comment on column results.image_id is 'Refers to images.';
  comment on column results.dataset_id is 'Refers to datasets.';
  comment on column results.label is 'Label that applies best, or the name of a measured quantity.';
  comment on column results.confidence is 'Score of the label, 0 to 1; 0 for a measured quantity.';
  comment on column results.verdict is 'clear, needs_review or out_of_domain.';
  comment on column results.scores is 'Score of each label, 0 to 1.';
  comment on column results.hidden is 'The job or the image was deleted.';
  comment on column results.warnings is 'Warnings of the image when it was classified.';
  comment on column results.value is 'Number that a regression gave; null for labels.';
  comment on column results.position is 'Position of the event.';
  comment on column results.sha256 is 'SHA-256 of the image in hexadecimal.';
  comment on column results.device_id is 'Device that took the image. Refers to devices.';
  comment on column results.reused is 'Earlier result that this one repeats; null if the model was run. Refers to results.';
  comment on column results.original is 'What the model said: {label, confidence, verdict}; null while no policy changed it.';

  -- ---- policies -------------------------------------------------------------------------------------------------------------------
  create table policies (
    id         uuid        primary key,
    version    integer     not null,
    scope      text        not null,
    target_id  uuid        not null,
    dataset_id uuid,
    rules      jsonb,
    set_by     uuid        not null,
    set_at     timestamptz not null,
    position   bigint      not null
  );
  comment on table policies is 'Policies: the rules by which labels and verdicts follow from scores.';
  comment on column policies.version is 'Version of the stream.';
  comment on column policies.scope is 'job, dataset or model.';
  comment on column policies.target_id is 'Id of the job, dataset or model.';
  comment on column policies.dataset_id is 'Dataset of the job, or the dataset itself; null for a model. Refers to datasets.';
  comment on column policies.rules is 'The rules; null for a policy that was withdrawn.';
  comment on column policies.set_by is 'Refers to users.';
  comment on column policies.position is 'Position of the last change.';

  create table policy_applications (
    id         uuid   primary key,
    position   bigint not null,
    reached    jsonb  not null,
    applied_at timestamptz
  );
  comment on table policy_applications is 'How far the results follow the last change of each policy.';
  comment on column policy_applications.id is 'Refers to policies.';
  comment on column policy_applications.position is 'Position of the change.';
  comment on column policy_applications.reached is 'The last result that was derived again.';
  comment on column policy_applications.applied_at is 'When all results followed the change; null while they are derived again.';

  create index results_hidden on results (dataset_id, created_at, id) where hidden;  -- policies change hidden results too

  -- ---- statistics -----------------------------------------------------------------------------------------------------------------

  create table tallies (
    dataset_id uuid        not null,
    minute     timestamptz not null,
    count      bigint      not null,
    micros     bigint      not null,
    measured   bigint      not null default 0,
    primary key (dataset_id, minute)
  ) with (fillfactor = 70);
  comment on table tallies is 'Results of each dataset and minute. Triggers on results write it.';
  comment on column tallies.dataset_id is 'Refers to datasets.';
  comment on column tallies.count is 'Results that are not hidden and repeat no earlier one.';
  comment on column tallies.micros is 'Sum of their confidence, in millionths.';
  comment on column tallies.measured is 'How many of them are numbers, which have no confidence.';

  create table statistics (
    dataset_id    uuid      not null,
    day           date      not null,
    model_name    text      not null,
    model_version integer   not null,
    device_id     uuid      not null,
    label         text      not null,
    verdict       text      not null,
    count         bigint    not null,
    micros        bigint    not null,
    measured      bigint    not null,
    total         numeric   not null,
    bins          bigint[]  not null,
    primary key (dataset_id, day, model_name, model_version, device_id, label, verdict)
  ) with (fillfactor = 50);
  create index statistics_of_day on statistics (day);
  create trigger tally_added after insert on results
    referencing new table as changed for each statement execute function ops.count_results('1');
  create trigger tally_counted after update on results
    referencing new table as changed for each statement execute function ops.count_results('1');
  create trigger tally_uncounted after update on results
    referencing old table as changed for each statement execute function ops.count_results('-1');
  create trigger tally_removed after delete on results
    referencing old table as changed for each statement execute function ops.count_results('-1');
  comment on table statistics is 'Results of each day, by all that they can be grouped by. Triggers on results write it.';
  comment on column statistics.dataset_id is 'Refers to datasets.';
  comment on column statistics.day is 'Day of the results, in UTC.';
  comment on column statistics.model_version is 'Number of the model version.';
  comment on column statistics.device_id is 'Device of the image when it was classified; all zeros if it names none. Refers to devices.';
  comment on column statistics.label is 'Label in force, or the name of a measured quantity.';
  comment on column statistics.verdict is 'Verdict in force: clear, needs_review or out_of_domain.';
  comment on column statistics.count is 'Results that are not hidden and repeat no earlier one.';
  comment on column statistics.micros is 'Sum of their confidence, in millionths.';
  comment on column statistics.measured is 'How many of them are numbers, which have no confidence.';
  comment on column statistics.total is 'Sum of these numbers.';
  comment on column statistics.bins is 'How many of the others have a confidence from 0 to 0.05, from 0.05 to 0.1, and so on: 20 bins.';

  create table outdated_results (
    id       uuid    primary key,
    image_id uuid    not null,
    reader   integer not null
  );
  comment on table outdated_results is 'Results that were computed from other pixels than a newer reader gives.';
  comment on column outdated_results.id is 'Id of the result. Refers to results.';
  comment on column outdated_results.image_id is 'Refers to images.';
  comment on column outdated_results.reader is 'Reader version that gives other pixels.';

  -- ---- activity --------------------------------------------------------------------------------------------------------------------
  create table activity (
    position bigint      primary key,
    at       timestamptz not null,
    type     text        not null,
    stream   uuid        not null,
    actor    uuid        not null,
    dataset  uuid,
    subjects uuid[]      not null
  );
  create index activity_about on activity using gin (subjects);
  create index activity_of_dataset on activity (dataset, position) where dataset is not null;
  create index activity_of_actor on activity (actor, position) where type <> 'ChunkJudged';
  create index activity_of_account on activity ((subjects[cardinality(subjects)]), position)
    where dataset is null or type = any (array['DatasetShared', 'DatasetShareWithdrawn', 'DatasetTransferred']);
  comment on table activity is 'All events, without their content: for live events and audit trails.';
  comment on column activity.position is 'Position of the event.';
  comment on column activity.at is 'Time of the event.';
  comment on column activity.type is 'Type of the event.';
  comment on column activity.stream is 'Stream of the event.';
  comment on column activity.actor is 'User, service or part of the system that caused the event.';
  comment on column activity.dataset is 'Dataset of the event; null if it has none. Refers to datasets.';
  comment on column activity.subjects is 'Ids of everything that the event touches, its stream first.';

  -- ---- rights ----------------------------------------------------------------------------------------------------------------------
  execute format('grant usage on schema %I to bioscope_app, bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference', target);
  execute format('grant select, insert, update, delete on all tables in schema %I to bioscope_app, bioscope_projector', target);
  execute format('grant select on all tables in schema %I to bioscope_api', target);
  grant select on checkpoint to bioscope_relay, bioscope_inference;
  grant select on models to bioscope_inference;
end $procedure$;

CREATE OR REPLACE FUNCTION ops.model_stream(name text)
 RETURNS uuid
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE STRICT
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  digest bytea := substr(ops.sha1(uuid_send('d17952a2-7bd5-5beb-9efb-34ae6c816ec7'::uuid) || convert_to('model/' || name, 'UTF8')), 1, 16);
begin
  digest := set_byte(digest, 6, (get_byte(digest, 6) & 15) | 80);
  digest := set_byte(digest, 8, (get_byte(digest, 8) & 63) | 128);
  return encode(digest, 'hex')::uuid;
end $function$;

CREATE OR REPLACE FUNCTION ops.check_model_answer(stream uuid, version integer, topic text, state bytea, streams uuid[], topics text[], states bytea[])
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  event    json := ops.as_json(state);
  "check"  uuid;
  asked    record;
  model    es.streams;
  versions bigint;                                     -- of the model before the command
begin
  if topic = 'ModelAliasMoved' then
    return case
      when event ->> 'alias' is distinct from 'candidate' then 'a worker may only move the alias candidate'
      when event ->> 'reason' is not null then 'a worker gives no reason for an alias'
      when not exists (select from unnest(streams, topics, states) as n (stream, topic, state) where n.topic = 'ModelVersionAdded'
        and n.stream = check_model_answer.stream and ops.as_json(n.state) #>> '{version,number}' = event ->> 'number'
        and ops.as_json(n.state) ->> 'by' = event ->> 'by')
        then 'a worker may only move the alias to a version that it adds, for the same person'
    end;
  end if;
  "check" := case when topic = 'ModelVersionAdded' then (event ->> 'check_id')::uuid else stream end;
  select s.version, e.topic, ops.as_json(e.state) as state into asked
    from es.streams s cross join lateral es.event_at(s.first) e where s.stream = "check";
  select * into model from es.streams s
    where s.stream = case when topic = 'ModelVersionAdded' then check_model_answer.stream else (event ->> 'model_id')::uuid end;
  versions := (select count(*) from es.stream_events(model.stream, 0) e where e.topic = 'ModelVersionAdded');
  return case
    when asked.topic is null or asked.topic not in ('ModelPackageUploaded', 'ModelTestRequested') then 'nobody asked for the check'
    when asked.version <> 1 then 'the check has an answer already'
    when topic <> 'ModelVersionAdded' and version <> 2 then 'the check has an answer already'
    when (topic = 'ModelCheckFailed' or (topic = 'ModelCheckPassed' and asked.topic = 'ModelTestRequested'))
      and (asked.state ->> 'model_id', asked.state ->> 'number') is distinct from (event ->> 'model_id', event ->> 'number')
      then 'the check was of another version'
    when topic = 'ModelCheckPassed' and ops.model_stream(event ->> 'model_name') is distinct from (event ->> 'model_id')::uuid
      then 'the name is not that of the model'
    when topic = 'ModelCheckPassed' and ((event ->> 'number')::integer between 1 and versions) is not true
      and not exists (select from unnest(streams, topics, states) with ordinality as n (stream, topic, state, place)
        where n.topic = 'ModelVersionAdded' and n.stream = (event ->> 'model_id')::uuid
          and ops.as_json(n.state) #>> '{version,number}' = event ->> 'number' and n.place < array_position(streams, "check"))
      then 'the model has no such version'
    when topic = 'ModelVersionAdded' and asked.topic <> 'ModelPackageUploaded' then 'nobody uploaded the package'
    when topic = 'ModelVersionAdded' and (event ->> 'by') is distinct from (asked.state ->> 'by')
      then 'the version is not added for the person who uploaded it'
    when topic = 'ModelVersionAdded' and (event #>> '{version,package}') is distinct from (asked.state ->> 'sha256')
      then 'the package is not the uploaded one'
    when topic = 'ModelVersionAdded' and not ops.may_add_models((event ->> 'by')::uuid) then 'the person who uploaded it may add no models'
    when topic = 'ModelVersionAdded' and ops.check_version(event -> 'version') is not null then ops.check_version(event -> 'version')
    when topic = 'ModelVersionAdded' and ops.model_stream(event ->> 'name') is distinct from stream then 'the name is not that of the model'
    when topic = 'ModelVersionAdded' and es.stream_holds(model, '{ModelRetired}') then 'the model is retired'
    when topic = 'ModelVersionAdded' and (event #>> '{version,number}') is distinct from (versions + 1)::text
      then 'the number is not the next one'
    when topic = 'ModelVersionAdded' and not exists (select from unnest(streams, topics) as n (stream, topic)
      where n.stream = "check" and n.topic = 'ModelCheckPassed') then 'a version is added only when its check has passed'
    when topic = 'ModelVersionAdded' and cardinality(array_positions(topics, 'ModelVersionAdded')) > 1 then 'a check adds one version'
  end;
end $function$;

CREATE OR REPLACE FUNCTION ops.external_labels(model uuid, number text, sha256 text)
 RETURNS text[]
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(max(array(select json_array_elements_text(v.version -> 'labels'))), '{}')
    from (select ops.as_json(e.state) -> 'version' as version from es.stream_events(model, 0) e where e.topic = 'ModelVersionAdded') v
    where v.version ->> 'kind' = 'external' and v.version ->> 'number' = number and v.version ->> 'sha256' = sha256
$function$;

CREATE OR REPLACE FUNCTION ops.check_declaration(stream uuid, state bytea, actor text)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  event    json := ops.as_json(state);
  version  json := event -> 'version';
  digest   text := encode(sha256(convert_to(version ->> 'record', 'UTF8')), 'hex');
  model    es.streams;
  versions bigint;
begin
  select * into model from es.streams s where s.stream = check_declaration.stream;
  versions := (select count(*) from es.stream_events(model.stream, 0) e where e.topic = 'ModelVersionAdded');
  return case
    when version ->> 'kind' is distinct from 'external' or event ->> 'check_id' is not null
      then 'a version with a file is added only when its check has passed'
    when (event ->> 'by') is distinct from actor then 'the version is not added for the person who declares it'
    when version ->> 'package' <> '' or version ->> 'size' <> '0' then 'an external version has no file'
    when (version ->> 'sha256', version ->> 'digest') is distinct from (digest, digest) then 'the digest is not that of the declaration'
    when (version ->> 'record')::jsonb is distinct from jsonb_build_object('kind', 'external', 'weights', 'unknown',
        'name', event -> 'name', 'description', event -> 'description', 'labels', version -> 'labels',
        'label_texts', version -> 'label_texts', 'review_below', version -> 'review_below')
      or version ->> 'release' <> '' then 'the version differs from its declaration'
    when ops.check_version(version) is not null then ops.check_version(version)
    when ops.model_stream(event ->> 'name') is distinct from stream then 'the name is not that of the model'
    when es.stream_holds(model, '{ModelRetired}') then 'the model is retired'
    when (version ->> 'number') is distinct from (versions + 1)::text then 'the number is not the next one'
  end;
end $function$;

CREATE OR REPLACE FUNCTION ops.may_add_models(account uuid)
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(
    (array_agg(k.state ->> 'role' order by k.version desc) filter (where k.topic in ('UserRegistered', 'UserRoleChanged')))[1]
      in ('researcher', 'admin')
    and (array_agg(k.state ->> 'status' order by k.version desc) filter (where k.topic in ('UserRegistered', 'UserStatusChanged')))[1]
      = 'active'
    and not bool_or(k.topic in ('UserDeleted', 'UserErased')), false)
  from (select e.topic, e.originator_version as version, ops.as_json(e.state) as state from es.stream_events(account, 0) e) as k;
$function$;

CREATE OR REPLACE FUNCTION ops.check_version(version json)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select case
    when (version ->> 'digest' ~ '^[0-9a-f]{64}$') is not true then 'the digest is no SHA-256 in hexadecimal'
    when (version ->> 'sha256' ~ '^[0-9a-f]{64}$') is not true then 'the sha256 of the weights is none'
    when json_typeof(version -> 'labels') is distinct from 'array'
      or (select count(*) between 1 and 300 and count(*) = count(distinct l.label) and bool_and(l.label <> '')
        from json_array_elements_text(version -> 'labels') as l (label)) is not true
      then 'the labels are missing, too many, empty or double'
    when (version ->> 'record' is json object) is not true then 'the record is no manifest'
  end;
$function$;

CREATE OR REPLACE FUNCTION ops.count_results()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  way  constant integer := tg_argv[0];
  path constant text    := current_setting('search_path');
begin
  if current_schema() is distinct from tg_table_schema then
    perform set_config('search_path', quote_ident(tg_table_schema), true);
  end if;
  insert into tallies as t (dataset_id, minute, count, micros, measured)
    select dataset_id, date_bin('1 minute', created_at, '2000-01-01 00:00Z'), way * count(*),
      way * sum(round(confidence * 1000000)::bigint), way * count(value)
    from changed where not hidden and reused is null group by 1, 2
    on conflict (dataset_id, minute) do update
      set count = t.count + excluded.count, micros = t.micros + excluded.micros, measured = t.measured + excluded.measured;
  with counted as materialized (
    select dataset_id, (created_at at time zone 'UTC')::date as day, model_name, model_version,
      coalesce(device_id, '00000000-0000-0000-0000-000000000000') as device_id, label, verdict, value,
      round(confidence * 1000000)::bigint as micros,
      case when value is null then least(round(confidence * 1000000)::bigint / 50000, 19) end as bin
    from changed where not hidden and reused is null
  )
  insert into statistics as s (dataset_id, day, model_name, model_version, device_id, label, verdict, count, micros, measured, total, bins)
    select dataset_id, day, model_name, model_version, device_id, label, verdict, way * count(*), way * sum(micros), way * count(value),
      trim_scale(way * coalesce(sum(value::numeric), 0)), array[
        way * count(*) filter (where bin = 0), way * count(*) filter (where bin = 1), way * count(*) filter (where bin = 2),
        way * count(*) filter (where bin = 3), way * count(*) filter (where bin = 4), way * count(*) filter (where bin = 5),
        way * count(*) filter (where bin = 6), way * count(*) filter (where bin = 7), way * count(*) filter (where bin = 8),
        way * count(*) filter (where bin = 9), way * count(*) filter (where bin = 10), way * count(*) filter (where bin = 11),
        way * count(*) filter (where bin = 12), way * count(*) filter (where bin = 13), way * count(*) filter (where bin = 14),
        way * count(*) filter (where bin = 15), way * count(*) filter (where bin = 16), way * count(*) filter (where bin = 17),
        way * count(*) filter (where bin = 18), way * count(*) filter (where bin = 19)
      ]
    from counted group by 1, 2, 3, 4, 5, 6, 7
    on conflict (dataset_id, day, model_name, model_version, device_id, label, verdict) do update
      set count = s.count + excluded.count, micros = s.micros + excluded.micros, measured = s.measured + excluded.measured,
        total = trim_scale(s.total + excluded.total), bins = array[
          s.bins[1] + excluded.bins[1], s.bins[2] + excluded.bins[2], s.bins[3] + excluded.bins[3], s.bins[4] + excluded.bins[4],
          s.bins[5] + excluded.bins[5], s.bins[6] + excluded.bins[6], s.bins[7] + excluded.bins[7], s.bins[8] + excluded.bins[8],
          s.bins[9] + excluded.bins[9], s.bins[10] + excluded.bins[10], s.bins[11] + excluded.bins[11], s.bins[12] + excluded.bins[12],
          s.bins[13] + excluded.bins[13], s.bins[14] + excluded.bins[14], s.bins[15] + excluded.bins[15], s.bins[16] + excluded.bins[16],
          s.bins[17] + excluded.bins[17], s.bins[18] + excluded.bins[18], s.bins[19] + excluded.bins[19], s.bins[20] + excluded.bins[20]
        ];
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION ops.follow_access()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
declare
  path     constant text := current_setting('search_path');
  subjects uuid[];
  affected uuid[];
begin
  if not exists (select from changed) then
    return null;
  end if;
  if current_schema() is distinct from tg_table_schema then
    perform set_config('search_path', quote_ident(tg_table_schema), true);
  end if;
  if tg_table_name = 'dataset_access' then
    select array_agg(subject), array_agg(dataset) into subjects, affected from (
      select c.subject, c.dataset from changed c
      union select m.member, c.dataset from changed c join team_members m on m.team = c.subject
    ) pairs;
  elsif tg_table_name = 'team_members' then
    select array_agg(c.member), array_agg(a.dataset) into subjects, affected from changed c join dataset_access a on a.subject = c.team;
  elsif tg_table_name = 'teams' then
    select array_agg(m.member), array_agg(a.dataset) into subjects, affected
      from changed c join team_members m on m.team = c.id join dataset_access a on a.subject = c.id;
  end if;
  if subjects is not null then
    with pairs as materialized (select distinct subject, dataset from unnest(subjects, affected) as p (subject, dataset)),
    granted as (
      select p.subject, p.dataset, a.role from pairs p join dataset_access a on a.subject = p.subject and a.dataset = p.dataset
      union all
      select p.subject, p.dataset, a.role from pairs p
        join team_members m on m.member = p.subject
        join teams t on t.id = m.team and not t.deleted
        join dataset_access a on a.subject = m.team and a.dataset = p.dataset
    ),
    highest as materialized (
      select distinct on (subject, dataset) subject, dataset, role from granted
      order by subject, dataset, array_position(array['owner', 'editor', 'analyst', 'viewer'], role)
    ),
    ended as (
      delete from effective_access e using pairs p
        where e.subject = p.subject and e.dataset = p.dataset
          and not exists (select from highest h where h.subject = p.subject and h.dataset = p.dataset)
    )
    insert into effective_access as e (subject, dataset, role) select subject, dataset, role from highest
      on conflict (subject, dataset) do update set role = excluded.role where e.role <> excluded.role;
    select array_agg(k.id), array_agg(p.dataset) into subjects, affected
      from unnest(subjects, affected) as p (subject, dataset)
      join api_keys k on k.owner_id = p.subject and k.owner_kind = 'user' and p.dataset = any(k.dataset_ids);
  elsif tg_table_name = 'api_keys' then
    select array_agg(c.id), array_agg(d.dataset) into subjects, affected from changed c cross join unnest(c.dataset_ids) as d (dataset);
  end if;
  if subjects is not null then
    with pairs as materialized (select distinct subject, dataset from unnest(subjects, affected) as p (subject, dataset)),
    allowed as materialized (
      select p.subject, p.dataset, e.role from pairs p
        join api_keys k on k.id = p.subject and k.revoked_at is null and k.owner_kind = 'user'
        join effective_access e on e.subject = k.owner_id and e.dataset = p.dataset
      union all
      select p.subject, p.dataset,
          case when 'images:write' = any(k.scopes) then 'editor' when 'jobs:run' = any(k.scopes) then 'analyst' else 'viewer' end
        from pairs p join api_keys k on k.id = p.subject and k.revoked_at is null and k.owner_kind = 'service'
        where k.scopes && array['images:write', 'jobs:run', 'images:read', 'datasets:read', 'results:read', 'events:read']
    ),
    ended as (
      delete from effective_access e using pairs p
        where e.subject = p.subject and e.dataset = p.dataset
          and not exists (select from allowed a where a.subject = p.subject and a.dataset = p.dataset)
    )
    insert into effective_access as e (subject, dataset, role) select subject, dataset, role from allowed
      on conflict (subject, dataset) do update set role = excluded.role where e.role <> excluded.role;
  end if;
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);
  end if;
  return null;
end $function$;

CREATE OR REPLACE FUNCTION ops.append_access(w_writer uuid, w_batch bigint, r_at timestamp with time zone[], r_kind text[], r_outcome text[], r_actor uuid[], r_actor_kind text[], r_key uuid[], r_noun text[], r_object uuid[], r_dataset uuid[], r_route text[], r_request text[], r_count integer[], r_address text[], r_person uuid[])
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  head    record;
  last    bigint;
  chain   bytea;
  stamp   timestamptz;
  salt    bytea;
  covered bytea;
  persons uuid[];
begin
  select h.position, h.hash into head from ops.access_head h for update;
  insert into ops.access_writers as w (writer, batch, written_at) values (w_writer, w_batch, now())
    on conflict (writer) do update set batch = excluded.batch, written_at = excluded.written_at where w.batch < excluded.batch;
  if not found then
    return head.position;
  end if;
  select coalesce(array_agg(owner), '{}') into persons from (
    select s.owner from es.secrets s where s.kind = 'key' and s.owner = any (r_person) order by s.owner for key share) known;
  last := head.position;
  chain := head.hash;
  stamp := clock_timestamp();
  perform set_config('ops.access_change', 'on', true);
  for i in 1 .. cardinality(r_kind) loop
    last := last + 1;
    salt := uuid_send(gen_random_uuid());
    covered := sha256(salt || convert_to(r_address[i], 'UTF8'));
    chain := sha256(chain || es.framed(int8send(last)) || es.framed(int8send((extract(epoch from stamp) * 1000000)::bigint))
      || es.framed(int8send((extract(epoch from r_at[i]) * 1000000)::bigint)) || es.framed(convert_to(r_kind[i], 'UTF8'))
      || es.framed(convert_to(r_outcome[i], 'UTF8')) || es.framed(coalesce(uuid_send(r_actor[i]), ''))
      || es.framed(convert_to(r_actor_kind[i], 'UTF8')) || es.framed(coalesce(uuid_send(r_key[i]), ''))
      || es.framed(convert_to(r_noun[i], 'UTF8')) || es.framed(coalesce(uuid_send(r_object[i]), ''))
      || es.framed(coalesce(uuid_send(r_dataset[i]), '')) || es.framed(convert_to(r_route[i], 'UTF8'))
      || es.framed(convert_to(r_request[i], 'UTF8')) || es.framed(int4send(r_count[i])) || es.framed(covered));
    insert into ops.access_log values (last, stamp, r_at[i], r_kind[i], r_outcome[i], r_actor[i], r_actor_kind[i], r_key[i], r_noun[i],
      r_object[i], r_dataset[i], r_route[i], r_request[i], r_count[i], covered, chain);
    if r_person[i] is null or r_person[i] = any (persons) then
      insert into ops.access_addresses values (last, salt, r_address[i], r_person[i]);
    end if;
  end loop;
  perform set_config('ops.access_change', '', true);
  update ops.access_head set position = last, hash = chain;
  return last;
end $function$;

CREATE OR REPLACE FUNCTION ops.prune_access_log(days integer, OUT removed bigint, OUT more boolean)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  head   record;
  cutoff timestamptz := now() - make_interval(days => greatest(days, 1));
  ends   bigint;
begin
  select * into head from ops.access_head h for update;
  select coalesce(max(s.position) filter (where s.position <= head.anchor_position + 10000), min(s.position)) into ends
    from ops.access_heads s join ops.access_log l on l.position = s.position and encode(l.hash, 'hex') = s.hash
    where s.position > head.anchor_position and s.signed_at < cutoff and l.recorded_at < cutoff;
  removed := 0;
  more := ends is not null;
  if more then
    perform set_config('ops.access_change', 'on', true);
    update ops.access_head set anchor_position = ends, anchor_hash = (select l.hash from ops.access_log l where l.position = ends);
    delete from ops.access_addresses a where a.position in (
      select o.position from ops.access_addresses o where o.position <= ends for update skip locked);  -- an erasure removes those
    delete from ops.access_log l where l.position <= ends;
    get diagnostics removed = row_count;
    delete from ops.access_heads s where s.position < ends;
    perform set_config('ops.access_change', '', true);
  else
    delete from ops.access_writers w where w.written_at < now() - interval '1 day';
  end if;
end $function$;

CREATE OR REPLACE FUNCTION ops.prune_key_uses(first_page bigint, OUT removed bigint, OUT next_page bigint)
 RETURNS record
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  part record := es.page_range('ops.key_uses', first_page, 128);
begin
  delete from ops.key_uses u where u.ctid >= part.first_row and u.ctid < part.beyond
    and u.last_at < now() - interval '400 days' and now() - interval '400 days' > case
    when u.legacy_name is null then (select least(k.expires_at, k.revoked_at) from read.api_keys k where k.id = u.key)
    else least(u.legacy_expiry, u.first_at + interval '90 days') end;
  get diagnostics removed = row_count;
  next_page := part.next_page;
end $function$;

revoke execute on function es.refuse() from public;
revoke execute on function es.framed(bytea) from public;
revoke execute on function es.append(uuid[],bytea[],uuid[],bytea[],integer[],uuid[],integer[],text[],integer[],bytea[],uuid[],integer[],uuid[],integer[],text[],integer[],text[],bytea[],uuid[],boolean[],integer[],text[],uuid[],bytea[]) from public;
revoke execute on function es.use_refresh_token(bytea,timestamp with time zone) from public;
revoke execute on function ops.tally() from public;
revoke execute on function ops.log_hash(bigint) from public;
revoke execute on function ops.advance(bigint,bigint,bigint,bytea,text,bigint,integer) from public;
revoke execute on function ops.sha1(bytea) from public;
revoke execute on function ops.chunk_stream(uuid,integer) from public;
revoke execute on function ops.chunk_size(integer) from public;
revoke execute on function ops.as_json(bytea) from public;
revoke execute on function ops.open_plan(uuid,json) from public;
revoke execute on procedure ops.fill_open_chunks() from public;
revoke execute on function ops.check_judgement(uuid,integer,bytea) from public;
revoke execute on function ops.check_inspection(uuid,bytea,bytea) from public;
revoke execute on function ops.writer() from public;
revoke execute on function ops.is_live(timestamp with time zone) from public;
revoke execute on function ops.declare_capabilities(uuid,text,text,text,text[],integer[],text) from public;
revoke execute on function ops.withdraw_capabilities(uuid) from public;
revoke execute on function ops.begin_to_write(text,integer) from public;
revoke execute on function es.partition_size() from public;
revoke execute on function es.partition_number(bigint) from public;
revoke execute on function es.partition_name(bigint) from public;
revoke execute on function es.refuse_directly() from public;
revoke execute on procedure es.protect_partition(text) from public;
revoke execute on procedure es.add_partition(bigint) from public;
revoke execute on procedure es.prepare_partitions(bigint) from public;
revoke execute on procedure es.prepare_partitions_unless_locked(bigint) from public;
revoke execute on procedure es.fill_streams() from public;
revoke execute on function es.event_at(bigint) from public;
revoke execute on function es.stream_events(uuid,integer) from public;
revoke execute on function es.stream_holds(es.streams,text[]) from public;
revoke execute on function es.page_range(regclass,bigint,bigint) from public;
revoke execute on function es.prune_commands(bigint) from public;
revoke execute on function es.prune_refresh_tokens(bigint) from public;
revoke execute on procedure ops.create_read_models(text) from public;
revoke execute on function ops.model_stream(text) from public;
revoke execute on function ops.check_model_answer(uuid,integer,text,bytea,uuid[],text[],bytea[]) from public;
revoke execute on function ops.external_labels(uuid,text,text) from public;
revoke execute on function ops.check_declaration(uuid,bytea,text) from public;
revoke execute on function ops.may_add_models(uuid) from public;
revoke execute on function ops.check_version(json) from public;
revoke execute on function ops.count_results() from public;
revoke execute on function ops.follow_access() from public;
revoke execute on function ops.refuse_access_change() from public;
revoke execute on function ops.append_access(uuid,bigint,timestamp with time zone[],text[],text[],uuid[],text[],uuid[],text[],uuid[],uuid[],text[],text[],integer[],text[],uuid[]) from public;
revoke execute on function ops.prune_access_log(integer) from public;
revoke execute on function ops.erase_addresses() from public;
revoke execute on function ops.prune_key_uses(bigint) from public;

grant execute on function es.append(uuid[],bytea[],uuid[],bytea[],integer[],uuid[],integer[],text[],integer[],bytea[],uuid[],integer[],uuid[],integer[],text[],integer[],text[],bytea[],uuid[],boolean[],integer[],text[],uuid[],bytea[]) to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector;
grant execute on function es.event_at(bigint) to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant execute on function es.framed(bytea) to bioscope_app;
grant execute on function es.prune_commands(bigint) to bioscope_app, bioscope_projector;
grant execute on function es.prune_refresh_tokens(bigint) to bioscope_app, bioscope_projector;
grant execute on function es.stream_events(uuid,integer) to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant execute on function es.use_refresh_token(bytea,timestamp with time zone) to bioscope_api, bioscope_app;
grant execute on function ops.advance(bigint,bigint,bigint,bytea,text,bigint,integer) to bioscope_app, bioscope_projector;
grant execute on function ops.append_access(uuid,bigint,timestamp with time zone[],text[],text[],uuid[],text[],uuid[],text[],uuid[],uuid[],text[],text[],integer[],text[],uuid[]) to bioscope_api, bioscope_app;
grant execute on function ops.begin_to_write(text,integer) to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector;
grant execute on function ops.declare_capabilities(uuid,text,text,text,text[],integer[],text) to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector;
grant execute on function ops.is_live(timestamp with time zone) to bioscope_api, bioscope_app;
grant execute on function ops.log_hash(bigint) to bioscope_api, bioscope_app, bioscope_projector;
grant execute on function ops.prune_access_log(integer) to bioscope_app, bioscope_projector;
grant execute on function ops.prune_key_uses(bigint) to bioscope_app, bioscope_projector;
grant execute on function ops.withdraw_capabilities(uuid) to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector;
grant usage on schema es to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant usage on schema ops to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant select on table es.claims to bioscope_api, bioscope_app;
grant select on table es.commands to bioscope_api, bioscope_app;
grant select on table es.events to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant select on table es.head to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant delete, insert, select on table es.refresh_tokens to bioscope_api, bioscope_app;
grant select on table es.secrets to bioscope_api, bioscope_app, bioscope_projector;
grant select on table es.streams to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant select on table ops.access_addresses to bioscope_api, bioscope_app;
grant select on table ops.access_head to bioscope_api, bioscope_app, bioscope_relay;
grant insert, select on table ops.access_heads to bioscope_app, bioscope_relay;
grant select on table ops.access_heads to bioscope_api;
grant select on table ops.access_log to bioscope_api, bioscope_app, bioscope_relay;
grant select (role, kind, process, release, types, versions, paused, seen_at) on table ops.capabilities to bioscope_api, bioscope_app;
grant delete, insert, select, update on table ops.counters to bioscope_app, bioscope_projector;
grant select on table ops.counters to bioscope_api;
grant delete, insert, select, update on table ops.devices_seen to bioscope_api, bioscope_app;
grant delete, insert, select, update on table ops.external_answers to bioscope_app, bioscope_inference;
grant insert, select, update on table ops.external_models to bioscope_app, bioscope_inference;
grant select on table ops.external_waits to bioscope_api, bioscope_app;
grant insert, select on table ops.heads to bioscope_app, bioscope_relay;
grant select on table ops.heads to bioscope_api;
grant delete, insert, select, update on table ops.key_uses to bioscope_api, bioscope_app;
grant delete, insert, select, update on table ops.known_addresses to bioscope_api, bioscope_app;
grant select, update on table ops.mail_checkpoint to bioscope_api, bioscope_app;
grant delete, insert, select, update on table ops.mail_failures to bioscope_api, bioscope_app;
grant select on table ops.migrations to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant select on table ops.relay to bioscope_api;
grant select, update on table ops.relay to bioscope_app, bioscope_relay;
grant delete, insert, select, update on table ops.releases to bioscope_app, bioscope_projector;
grant select on table ops.releases to bioscope_api;
grant select (id), update (held_at) on table ops.releases to bioscope_inference;
grant delete, insert, select, update on table ops.workers to bioscope_app, bioscope_inference;
grant select on table ops.workers to bioscope_api, bioscope_projector;
grant select on table ops.writers to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant select on table ops.written_types to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector;
