-- Oldest release: 0.1.0
-- Finds the accounts that were ever given the role of administrator without reading the whole log: few events meet the condition.
create index events_administrators on es.events (originator_id, notification_id)
  where topic in ('UserRegistered', 'UserRoleChanged') and position('"role":"admin"'::bytea in state) > 0;
