-- Oldest release: 0.2.0
-- From where each account signed in lately. Tries of its password from elsewhere are counted together, so that guessing stays slow, and
-- only where nobody knew the password before: so they lock nobody out who comes back.

create table ops.known_addresses (
  digest  bytea       primary key,                     -- keyed: of the account and of the address (IPv6: of its /64)
  user_id uuid        not null,
  kind    text        not null default 'password' check (kind = 'password'),
  seen_at timestamptz not null default now(),
  -- The addresses of an account are forgotten in the transaction that takes its password away: when it is closed or erased.
  foreign key (kind, user_id) references es.secrets (kind, owner) on delete cascade
);
create index known_addresses_account on ops.known_addresses (kind, user_id);
create index known_addresses_seen on ops.known_addresses (seen_at);
revoke all on ops.known_addresses from public;
grant select, insert, update, delete on ops.known_addresses to bioscope_api, bioscope_app;
