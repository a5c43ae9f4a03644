-- Oldest release: 0.1.0
-- A process that makes read models skips the events that an administrator gave up as dead letters, and asks the log for them before. There are few, if
-- any; nothing is appended while the index is made, and other events cost it nothing. Nothing is given up
-- while a process runs that does not know the type (`ops.begin_to_write`); one that starts later pauses at such an event.
create index events_discarded on es.events (notification_id) where topic = 'DeadLetterDiscarded';
