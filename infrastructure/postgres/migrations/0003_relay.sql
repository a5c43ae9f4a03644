-- Oldest release: 0.1.0
-- How far the log was published, and what was signed of it.

-- `epoch` moves when a relay takes the lead: one that was outlived cannot move the checkpoint.
create table ops.relay (
  one         boolean primary key default true check (one),
  epoch       bigint  not null,
  position    bigint  not null,                        -- of the last event that Kafka surely has
  cluster     text    not null,                        -- the Kafka cluster that has it
  next_offset bigint  not null                         -- behind its record
) with (fillfactor = 10);
insert into ops.relay (epoch, position, cluster, next_offset) values (0, 0, '', 0);

-- Signed heads. Copies lie where this database's owner cannot change them.
create table ops.heads (
  position  bigint      primary key,
  hash      text        not null,
  signed_at timestamptz not null,
  signature text        not null
);

grant select, update on ops.relay to bioscope_app;
grant select, insert on ops.heads to bioscope_app;
