-- Oldest release: 0.2.0
-- Key ids. Claims, request digests, wrapped data keys and sealed fields name their key in their first bytes from now on; only signed heads
-- have a column for it. Heads that were signed before have an empty one. What was written before stays as it is and is still read.
alter table ops.heads add column key_id text not null default '';
