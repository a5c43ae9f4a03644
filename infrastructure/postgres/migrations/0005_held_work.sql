-- Oldest release: 0.1.0
-- When a worker last said that it has this work in hand; null before it did. Work that is held is not lost, however long it takes.
alter table ops.releases add column held_at timestamptz;
