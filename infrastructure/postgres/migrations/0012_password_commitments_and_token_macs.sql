-- Oldest release: 0.2.0
-- Whoever edits password hashes or refresh tokens here signs nobody in: the record holds a commitment to each hash, and each token's row
-- has a MAC. Tokens that were issued before have none, and are refused: people sign in again.

-- A stronger hash of the same password is an event, since it has a commitment of its own.
update ops.writers set topics = topics || '{PasswordRehashed}' where role = 'bioscope_api';

alter table es.refresh_tokens add column mac bytea;              -- of digest, session, user and end
delete from es.refresh_tokens;
