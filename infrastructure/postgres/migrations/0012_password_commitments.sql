-- Oldest release: 0.2.0
-- A stronger hash of the same password is an event too, since each stored hash has its commitment in the record.
update ops.writers set topics = topics || '{PasswordRehashed}' where role = 'bioscope_api';
