-- Oldest release: 0.1.0
-- Signs of life of devices are no events any more: one every ten seconds made a stream of 26,000 events in three days. The log holds when
-- a device came online or went offline; when it was last seen stands here. It is not part of the record, and backups leave it out.

create table ops.devices_seen (
  device  uuid        primary key,
  seen_at timestamptz not null                         -- by the database's clock, which all processes share
) with (fillfactor = 50);                              -- a row is updated within its page
revoke all on ops.devices_seen from public;
grant select, insert, update, delete on ops.devices_seen to bioscope_api, bioscope_app;

-- Streams of more than 1,000 events, of which there should be none, are counted by this index alone. Jobs are left out: the plan of a job
-- over millions of images has that many parts. Nothing is appended while it is made.
create index events_long_streams on es.events (originator_id)
  where originator_version = 1001 and not starts_with(topic, 'Classification');
