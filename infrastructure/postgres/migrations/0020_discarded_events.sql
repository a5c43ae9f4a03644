-- Oldest release: 0.1.0
-- Whoever makes read models skips the events that an administrator gave up as dead letters, and asks the log for them before. There are few, if
-- any; nothing is appended while the index is made, and other events cost it nothing. A release that does not know the type must not run while
-- an event is given up.
create index events_discarded on es.events (notification_id) where topic = 'DeadLetterDiscarded';
