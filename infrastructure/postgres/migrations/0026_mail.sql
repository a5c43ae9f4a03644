-- Oldest release: 0.2.0
-- How far mails were sent. Events that were recorded before this migration cause none.

create table ops.mail_checkpoint (
  one           boolean primary key default true check (one),
  position      bigint  not null,
  problem       text    not null default '',
  problem_since timestamptz
) with (fillfactor = 10);
insert into ops.mail_checkpoint (position) select position from es.head;
comment on table ops.mail_checkpoint is 'The position up to which mails were sent. One row.';
comment on column ops.mail_checkpoint.position is 'Position of the last event whose mails were sent, deferred or refused.';
comment on column ops.mail_checkpoint.problem is 'Why no mail can be sent at present; empty if all is well.';
comment on column ops.mail_checkpoint.problem_since is 'Since when.';

create table ops.mail_failures (
  position        bigint      not null,
  number          integer     not null,
  reason          text        not null,
  attempts        integer     not null,
  failed_at       timestamptz not null,
  next_attempt_at timestamptz,
  primary key (position, number)
);
create index mail_failures_due on ops.mail_failures (next_attempt_at) where next_attempt_at is not null;
comment on table ops.mail_failures is 'Mails that the server did not accept. Names no address.';
comment on column ops.mail_failures.position is 'Position of the event that causes the mail.';
comment on column ops.mail_failures.number is 'Number of the mail among those of the event; 0 if the event cannot be read.';
comment on column ops.mail_failures.reason is 'Reason of the last attempt.';
comment on column ops.mail_failures.attempts is 'Attempts so far.';
comment on column ops.mail_failures.failed_at is 'Time of the last attempt.';
comment on column ops.mail_failures.next_attempt_at is 'Time of the next attempt; null if the mail was refused for good.';

grant select, update on ops.mail_checkpoint to bioscope_api, bioscope_app;
grant select, insert, update, delete on ops.mail_failures to bioscope_api, bioscope_app;
