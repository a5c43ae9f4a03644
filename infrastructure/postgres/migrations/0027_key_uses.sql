-- Oldest release: 0.2.0
-- When and from where each API key was used, and each service token of an earlier release.

create table ops.key_uses (
  key           uuid        primary key,
  user_id       uuid,
  kind          text        not null default 'password' check (kind = 'password'),
  first_at      timestamptz not null default clock_timestamp(),
  last_at       timestamptz not null default clock_timestamp(),
  network       text        not null,
  legacy_name   text,
  legacy_expiry timestamptz,
  foreign key (kind, user_id) references es.secrets (kind, owner) on delete cascade
);
create index key_uses_of_user on ops.key_uses (kind, user_id);
create index key_uses_legacy on ops.key_uses (first_at, key) where legacy_name is not null;
comment on table ops.key_uses is 'The first and last use of each API key. Those of a user are deleted with the user''s password.';
comment on column ops.key_uses.key is 'API key, or id (jti) of a signed service token. Refers to read.api_keys.';
comment on column ops.key_uses.user_id is 'Owner of a personal key; null for a program. Refers to es.secrets.';
comment on column ops.key_uses.kind is 'Always password: the row is deleted with the password of the owner.';
comment on column ops.key_uses.network is 'Network of the last client.';
comment on column ops.key_uses.legacy_name is 'Name of the program in a signed service token; null for an API key.';
comment on column ops.key_uses.legacy_expiry is 'When that token expires.';
comment on column es.secrets.kind is
  'password: a hash; key: a wrapped data key; api-key, previous-api-key: the hash of the secret of an API key.';
revoke all on ops.key_uses from public;
grant select, insert, update, delete on ops.key_uses to bioscope_api, bioscope_app;
