-- Oldest release: 0.2.0
-- Accounts of people and of programs: registrations, invitations, API keys and teams.

update ops.writers set topics = topics || '{
  PasswordResetRequested,PasswordReset,EmailChangeRequested,EmailChanged,
  RegistrationRequested,VerificationRequested,RegistrationCompleted,RegistrationDiscarded,
  UserInvited,InvitationRepeated,InvitationAccepted,InvitationWithdrawn,
  ServiceAccountCreated,ServiceAccountDeleted,LegacyTokensRevoked,KeyIssued,KeyRotated,KeyRevoked,
  TeamCreated,TeamRenamed,TeamMemberAdded,TeamMemberRemoved,TeamDeleted,
  DatasetSharedWithTeam,DatasetTeamShareWithdrawn,DatasetTransferred,ModelPromoterTeamAdded,ModelPromoterTeamRemoved}'
  where role = 'bioscope_api';

-- ---- effective access ------------------------------------------------------------------------------------------------------------------
-- Triggers on grants, members, teams and keys follow the changed rows with `effective_access`. Postgres keeps the plans of these statements,
-- since they name no schema. The search path leads to the rows' own schema, where the projector works in any case.
create function ops.follow_access() returns trigger language plpgsql as $$
declare
  path     constant text := current_setting('search_path');
  subjects uuid[];
  affected uuid[];
begin
  if not exists (select from changed) then
    return null;
  end if;
  if current_schema() is distinct from tg_table_schema then
    perform set_config('search_path', quote_ident(tg_table_schema), true);
  end if;
  if tg_table_name = 'dataset_access' then
    select array_agg(subject), array_agg(dataset) into subjects, affected from (
      select c.subject, c.dataset from changed c
      union select m.member, c.dataset from changed c join team_members m on m.team = c.subject
    ) pairs;
  elsif tg_table_name = 'team_members' then
    select array_agg(c.member), array_agg(a.dataset) into subjects, affected from changed c join dataset_access a on a.subject = c.team;
  elsif tg_table_name = 'teams' then
    select array_agg(m.member), array_agg(a.dataset) into subjects, affected
      from changed c join team_members m on m.team = c.id join dataset_access a on a.subject = c.id;
  end if;
  if subjects is not null then
    with pairs as materialized (select distinct subject, dataset from unnest(subjects, affected) as p (subject, dataset)),
    granted as (
      select p.subject, p.dataset, a.role from pairs p join dataset_access a on a.subject = p.subject and a.dataset = p.dataset
      union all
      select p.subject, p.dataset, a.role from pairs p
        join team_members m on m.member = p.subject
        join teams t on t.id = m.team and not t.deleted
        join dataset_access a on a.subject = m.team and a.dataset = p.dataset
    ),
    highest as materialized (
      select distinct on (subject, dataset) subject, dataset, role from granted
      order by subject, dataset, array_position(array['owner', 'editor', 'analyst', 'viewer'], role)
    ),
    ended as (
      delete from effective_access e using pairs p
        where e.subject = p.subject and e.dataset = p.dataset
          and not exists (select from highest h where h.subject = p.subject and h.dataset = p.dataset)
    )
    insert into effective_access as e (subject, dataset, role) select subject, dataset, role from highest
      on conflict (subject, dataset) do update set role = excluded.role where e.role <> excluded.role;
    select array_agg(k.id), array_agg(p.dataset) into subjects, affected
      from unnest(subjects, affected) as p (subject, dataset)
      join api_keys k on k.owner_id = p.subject and k.owner_kind = 'user' and p.dataset = any(k.dataset_ids);
  elsif tg_table_name = 'api_keys' then
    select array_agg(c.id), array_agg(d.dataset) into subjects, affected from changed c cross join unnest(c.dataset_ids) as d (dataset);
  end if;
  if subjects is not null then
    with pairs as materialized (select distinct subject, dataset from unnest(subjects, affected) as p (subject, dataset)),
    allowed as materialized (
      select p.subject, p.dataset, e.role from pairs p
        join api_keys k on k.id = p.subject and k.revoked_at is null and k.owner_kind = 'user'
        join effective_access e on e.subject = k.owner_id and e.dataset = p.dataset
      union all
      select p.subject, p.dataset,
          case when 'images:write' = any(k.scopes) then 'editor' when 'jobs:run' = any(k.scopes) then 'analyst' else 'viewer' end
        from pairs p join api_keys k on k.id = p.subject and k.revoked_at is null and k.owner_kind = 'service'
        where k.scopes && array['images:write', 'jobs:run', 'images:read', 'datasets:read', 'results:read', 'events:read']
    ),
    ended as (
      delete from effective_access e using pairs p
        where e.subject = p.subject and e.dataset = p.dataset
          and not exists (select from allowed a where a.subject = p.subject and a.dataset = p.dataset)
    )
    insert into effective_access as e (subject, dataset, role) select subject, dataset, role from allowed
      on conflict (subject, dataset) do update set role = excluded.role where e.role <> excluded.role;
  end if;
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);
  end if;
  return null;
end $$;
revoke execute on function ops.follow_access from public;
-- ---- claims that pass from one stream to another ---------------------------------------------------------------------------------------
-- As in migration 0024, but a command may claim a value that it releases for another stream.
create or replace function es.append(
  k_id uuid[], k_digest bytea[], k_subject uuid[], k_meta bytea[],
  e_cmd int[], e_stream uuid[], e_version int[], e_topic text[], e_schema int[], e_state bytea[], e_id uuid[],
  g_cmd int[], g_stream uuid[], g_version int[], g_closers text[],
  c_cmd int[], c_scope text[], c_digest bytea[], c_stream uuid[], c_claimed bool[],
  s_cmd int[], s_kind text[], s_owner uuid[], s_value bytea[]
) returns table (outcome text, "position" bigint, subject uuid, detail text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  head      record;
  known     record;
  last      bigint;
  chain     bytea;
  stamp     timestamptz;
  micros    bytea;
  e         int := 1;
  g         int := 1;
  c         int := 1;
  s         int := 1;
  until     int;
  verdict   text;
  why       text;
  newest    int;
  stream    es.streams;
  -- Events of several commands are written in one statement, unless something reads them before.
  together  boolean := cardinality(k_id) > 1 and not e_topic && '{ClassificationPlanned,ImageAccepted,ImageRejected,ModelCheckPassed,ModelCheckFailed,ModelVersionAdded}';
  positions bigint[];                                  -- of the events that are to be written so, and their hashes
  hashes    bytea[];
  holder    uuid;
  writer    ops.writers := ops.writer();
  checked   record;
  jobs      uuid[];
  numbers   integer[];
begin
  select h.position, h.hash into head from es.head h for update;
  last := head.position;
  chain := head.hash;
  stamp := clock_timestamp();
  micros := es.framed(int8send((extract(epoch from stamp) * 1000000)::bigint));
  perform set_config('es.appending', 'with streams', true);
  if to_regclass('es.' || es.partition_name(es.partition_number(last + cardinality(e_cmd)))) is null then
    call es.prepare_partitions(last + cardinality(e_cmd));
  end if;
  if together then                                     -- whole, since `unnest` goes by places
    positions := array_fill(null::bigint, array[cardinality(e_cmd)]);
    hashes := array_fill(null::bytea, array[cardinality(e_cmd)]);
  end if;

  for i in 1 .. cardinality(k_id) loop
    verdict := 'appended';
    why := null;
    select k.position, k.digest, k.subject into known from es.commands k where k.id = k_id[i];
    if found then
      verdict := case when known.digest is distinct from k_digest[i] then 'reused' else 'replayed' end;
    end if;

    while g <= cardinality(g_cmd) and g_cmd[g] = i loop
      if verdict = 'appended' then
        select * into stream from es.streams v where v.stream = g_stream[g];
        if stream.version is null then
          verdict := 'missing';
          why := g_stream[g]::text;
        elsif g_version[g] is not null and stream.version <> g_version[g] then
          verdict := 'conflict';
        elsif g_closers[g] <> '' and (
          es.stream_holds(stream, string_to_array(g_closers[g], ','))
        or together and stream.newest > head.position and exists (
          select from unnest(e_stream, e_topic, positions) as n (stream, topic, position)
            where n.stream = g_stream[g] and n.topic = any (string_to_array(g_closers[g], ',')) and n.position is not null
        )) then
          verdict := 'closed';
          why := g_stream[g]::text;
        end if;
      end if;
      g := g + 1;
    end loop;

    until := e;
    while until <= cardinality(e_cmd) and e_cmd[until] = i loop
      if verdict = 'appended' and (until = e or e_stream[until] <> e_stream[until - 1]) then
        select v.version into newest from es.streams v where v.stream = e_stream[until];
        if coalesce(newest, 0) <> e_version[until] - 1 then
          verdict := 'conflict';
        end if;
      end if;
      until := until + 1;
    end loop;

    if verdict = 'appended' then
      for j in c .. cardinality(c_cmd) loop
        exit when c_cmd[j] <> i;
        select l.stream into holder from es.claims l where l.scope = c_scope[j] and l.digest = c_digest[j];
        if c_claimed[j] and found and holder <> c_stream[j] and not exists (
          select from generate_series(c, j - 1) as r where not c_claimed[r] and c_stream[r] = holder
            and (c_digest[r] is null or c_scope[r] = c_scope[j] and c_digest[r] = c_digest[j])
        ) then
          verdict := 'taken';
          why := c_scope[j];
        end if;
      end loop;
    end if;

    if verdict = 'appended' and not writer.keeps and (
      (c <= cardinality(c_cmd) and c_cmd[c] = i) or (s <= cardinality(s_cmd) and s_cmd[s] = i)
    ) then
      verdict := 'refused';
      why := format('%s may not change claims or secrets', writer.role);
    end if;
    if verdict = 'appended' and writer.actor is not null
      and (ops.as_json(k_meta[i]) #>> '{actor,id}')::uuid is distinct from writer.actor then
      verdict := 'refused';
      why := format('%s may not act for others', writer.role);
    end if;
    jobs := '{}';
    numbers := '{}';
    for j in e .. until - 1 loop
      exit when verdict <> 'appended';
      if not (e_topic[j] = any (writer.topics) or '*' = any (writer.topics)) then
        verdict := 'refused';
        why := format('%s may not append %s', writer.role, e_topic[j]);
      elsif e_topic[j] in ('ChunkJudged', 'ImageAccepted', 'ImageRejected') and e_schema[j] <> 1 then
        verdict := 'refused';
        why := format('%s has no schema version %s', e_topic[j], e_schema[j]);
      elsif e_topic[j] = 'ChunkJudged' then
        select * into checked from ops.check_judgement(e_stream[j], e_version[j], e_state[j]);
        jobs := jobs || checked.job;
        numbers := numbers || checked.number;
        if checked.why is not null then
          verdict := 'refused';
          why := checked.why;
        end if;
      elsif e_topic[j] in ('ImageAccepted', 'ImageRejected') then
        why := ops.check_inspection(e_stream[j], e_state[j],
          case when j > e and e_stream[j - 1] = e_stream[j] and e_topic[j - 1] = 'ImageUploaded' then e_state[j - 1] end);
        if why is not null then
          verdict := 'refused';
        end if;
      elsif e_topic[j] = 'ModelVersionAdded' and writer.role = 'bioscope_api' then
        why := ops.check_declaration(e_stream[j], e_state[j], ops.as_json(k_meta[i]) #>> '{actor,id}');
        if why is not null then
          verdict := 'refused';
        end if;
      elsif e_topic[j] = 'ModelVersionAdded' and writer.role = 'bioscope_inference'
        and ops.as_json(e_state[j]) #>> '{version,kind}' = 'external' then
        verdict := 'refused';
        why := 'no package is an external classifier';
      elsif e_topic[j] in ('ModelCheckPassed', 'ModelCheckFailed')
        or (writer.role = 'bioscope_inference' and e_topic[j] in ('ModelVersionAdded', 'ModelAliasMoved')) then
        why := ops.check_model_answer(e_stream[j], e_version[j], e_topic[j], e_state[j], e_stream[e : until - 1], e_topic[e : until - 1],
          e_state[e : until - 1]);
        if why is not null then
          verdict := 'refused';
        end if;
      end if;
    end loop;

    while c <= cardinality(c_cmd) and c_cmd[c] = i loop
      if verdict = 'appended' and c_claimed[c] then
        insert into es.claims (scope, digest, stream) values (c_scope[c], c_digest[c], c_stream[c]) on conflict do nothing;
      elsif verdict = 'appended' and c_digest[c] is null then
        delete from es.claims l where l.stream = c_stream[c];
      elsif verdict = 'appended' then
        delete from es.claims l where l.scope = c_scope[c] and l.digest = c_digest[c] and l.stream = c_stream[c];
      end if;
      c := c + 1;
    end loop;

    while s <= cardinality(s_cmd) and s_cmd[s] = i loop
      if verdict = 'appended' and s_value[s] is null then
        delete from es.secrets x where x.kind = s_kind[s] and x.owner = s_owner[s];
      elsif verdict = 'appended' then
        insert into es.secrets (kind, owner, value) values (s_kind[s], s_owner[s], s_value[s])
          on conflict (kind, owner) do update set value = excluded.value;
      end if;
      s := s + 1;
    end loop;

    if verdict = 'appended' then
      for j in e .. until - 1 loop
        last := last + 1;
        chain := sha256(chain || es.framed(int8send(last)) || es.framed(uuid_send(e_stream[j])) || es.framed(int4send(e_version[j]))
          || es.framed(convert_to(e_topic[j], 'UTF8')) || es.framed(int4send(e_schema[j])) || es.framed(e_state[j])
          || es.framed(k_meta[i]) || es.framed(uuid_send(e_id[j])) || micros);
        if together then
          positions[j] := last;
          hashes[j] := chain;
        else
          insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
            values (last, e_stream[j], e_version[j], e_topic[j], e_schema[j], e_state[j], k_meta[i], e_id[j], stamp, chain);
        end if;
        if e_version[j] = 1 then
          insert into es.streams (stream, version, first, newest) values (e_stream[j], 1, last, last);
        elsif j = until - 1 or e_stream[j + 1] <> e_stream[j] then
          update es.streams v set version = e_version[j], newest = last where v.stream = e_stream[j];
        end if;
        if e_topic[j] = 'ClassificationPlanned' then
          perform ops.open_plan(e_stream[j], ops.as_json(e_state[j]));
        elsif e_topic[j] in ('ClassificationCancelled', 'ClassificationCompleted', 'ClassificationFailed', 'ClassificationDeleted') then
          delete from ops.open_chunks o where o.job = e_stream[j];
        end if;
      end loop;
      if cardinality(jobs) > 0 then
        delete from ops.open_chunks o using unnest(jobs, numbers) as judged (job, number)
          where o.job = judged.job and o.number = judged.number;
      end if;
      insert into es.commands (id, digest, subject, position, recorded_at) values (k_id[i], k_digest[i], k_subject[i], last, stamp);
      outcome := verdict;
      position := last;
      subject := k_subject[i];
    else
      outcome := verdict;
      position := known.position;
      subject := known.subject;
    end if;
    e := until;
    detail := why;
    return next;
  end loop;

  if together then
    insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
      select n.position, n.stream, n.version, n.topic, n.schema, n.state, k_meta[n.cmd], n.id, stamp, n.hash
        from unnest(positions, e_cmd, e_stream, e_version, e_topic, e_schema, e_state, e_id, hashes)
          as n (position, cmd, stream, version, topic, schema, state, id, hash)
        where n.position is not null;
  end if;
  if last > head.position then
    update es.head h set position = last, hash = chain;
    if current_setting('bioscope.wakes', true) is distinct from 'after_commit' then
      perform pg_notify('bioscope_appended', last::text);
    end if;
    if to_regclass('es.' || es.partition_name(es.partition_number(last + es.partition_size() / 2))) is null then
      call es.prepare_partitions_unless_locked(last + es.partition_size() / 2);
    end if;
  end if;
  perform set_config('es.appending', '', true);
end $$;

-- ---- the read models -------------------------------------------------------------------------------------------------------------------
create or replace procedure ops.create_read_models(target text) language plpgsql as $$
begin
  execute format('create schema %I', target);
  perform set_config('search_path', target, true);

  -- ---- the engine ------------------------------------------------------------------------------------------------------------------
  create table checkpoint (
    projection  text   primary key,
    position    bigint not null,
    cluster     text   not null,
    next_offset bigint not null,
    generation  bigint not null,
    hash        bytea  not null default sha256('bioscope')
  ) with (fillfactor = 10);
  insert into checkpoint values ('main', 0, '', 0, (extract(epoch from clock_timestamp()) * 1000)::bigint);
  comment on table checkpoint is 'The position up to which the read models show the log. One row.';
  comment on column checkpoint.projection is 'Always main.';
  comment on column checkpoint.position is 'Position of the last event that was applied.';
  comment on column checkpoint.cluster is 'Kafka cluster in which next_offset counts; empty if none is known.';
  comment on column checkpoint.next_offset is 'Offset of the next record in the topic bioscope.events.';
  comment on column checkpoint.generation is 'Rises when another process than the projector changes rows.';
  comment on column checkpoint.hash is 'Hash of the event at this position, as the log has it.';

  create table folds (
    name    text    primary key,
    version integer not null
  );
  comment on table folds is 'The fold version by which each table was filled.';
  comment on column folds.name is 'Name of the table.';
  comment on column folds.version is 'Its fold version.';

  create table dead_letters (
    position bigint      primary key,
    stream   uuid        not null,
    type     text        not null,
    reason   text        not null,
    at       timestamptz not null default now()
  );
  comment on table dead_letters is 'Events that could not be applied.';
  comment on column dead_letters.position is 'Position of the event.';
  comment on column dead_letters.stream is 'Stream of the event.';
  comment on column dead_letters.type is 'Type of the event.';
  comment on column dead_letters.reason is 'Error of the last attempt, without private data.';
  comment on column dead_letters.at is 'Time of the last attempt.';

  create table parked (
    position bigint primary key,
    stream   uuid   not null
  );
  comment on table parked is 'Events that wait until a dead letter is resolved.';
  comment on column parked.position is 'Position of the event.';
  comment on column parked.stream is 'Stream of the event.';

  -- ---- accounts --------------------------------------------------------------------------------------------------------------------
  create table users (
    id            uuid        primary key,
    version       integer     not null,
    email         text        not null,
    username      text        not null,
    first_name    text        not null,
    last_name     text        not null,
    role          text        not null,
    status        text        not null,
    institution   text,
    department    text,
    phone         text,
    registered_at timestamptz not null,
    deleted       boolean     not null,
    erased        boolean     not null
  );
  create index users_listed on users (registered_at, id) where not deleted;
  comment on table users is 'Accounts of people.';
  comment on column users.version is 'Version of the stream.';
  comment on column users.email is 'E-mail address for signing in.';
  comment on column users.role is 'viewer, analyst, researcher or admin.';
  comment on column users.status is 'active, inactive, suspended or pending.';
  comment on column users.deleted is 'The account is closed.';
  comment on column users.erased is 'The data key was destroyed; private fields read [erased].';

  create table registrations (
    id           uuid        primary key,
    requested_at timestamptz not null
  );
  create index registrations_oldest on registrations (requested_at, id);
  comment on table registrations is 'Registrations whose address is not verified yet.';

  create table invitations (
    id         uuid        primary key,
    version    integer     not null,
    email      text,
    role       text        not null,
    invited_by uuid        not null,
    invited_at timestamptz not null,
    sent_at    timestamptz not null,
    status     text        not null,
    user_id    uuid
  );
  create index invitations_newest on invitations (invited_at, id);
  comment on table invitations is 'Invitations to create an account.';
  comment on column invitations.version is 'Version of the stream.';
  comment on column invitations.email is 'Address of the person; null once the invitation was accepted or withdrawn.';
  comment on column invitations.role is 'Role of the account: viewer, analyst, researcher or admin.';
  comment on column invitations.invited_by is 'Refers to users.';
  comment on column invitations.sent_at is 'When it was last sent.';
  comment on column invitations.status is 'open, accepted or withdrawn.';
  comment on column invitations.user_id is 'Account that was created; null before. Refers to users.';

  create table service_accounts (
    id         uuid        primary key,
    version    integer     not null,
    name       text        not null,
    created_by uuid        not null,
    created_at timestamptz not null,
    deleted    boolean     not null
  );
  create index service_accounts_listed on service_accounts (created_at, id) where not deleted;
  comment on table service_accounts is 'Accounts of programs.';
  comment on column service_accounts.version is 'Version of the stream.';
  comment on column service_accounts.created_by is 'Refers to users.';

  create table api_keys (
    id          uuid        primary key,
    version     integer     not null,
    owner_id    uuid        not null,
    owner_kind  text        not null,
    scopes      text[]      not null,
    dataset_ids uuid[],
    issued_by   uuid        not null,
    issued_at   timestamptz not null,
    expires_at  timestamptz not null,
    revoked_at  timestamptz
  );
  create index api_keys_newest on api_keys (issued_at, id);
  create index api_keys_of_owner on api_keys (owner_id, issued_at, id);
  comment on table api_keys is 'Keys of programs: of service accounts, and of users. Names are in the log only.';
  comment on column api_keys.version is 'Version of the stream.';
  comment on column api_keys.owner_id is 'Service account or user.';
  comment on column api_keys.owner_kind is 'service or user.';
  comment on column api_keys.scopes is 'What the key allows.';
  comment on column api_keys.dataset_ids is 'Datasets that the key reaches; null for all of its owner.';
  comment on column api_keys.issued_by is 'Refers to users.';
  comment on column api_keys.revoked_at is 'When it was revoked; null for a key that was not.';

  create table teams (
    id         uuid        primary key,
    version    integer     not null,
    name       text        not null,
    owner_id   uuid        not null,
    created_at timestamptz not null,
    deleted    boolean     not null
  );
  create index teams_listed on teams (created_at, id) where not deleted;
  comment on table teams is 'Teams.';
  comment on column teams.version is 'Version of the stream.';
  comment on column teams.owner_id is 'User who manages the team. Refers to users.';

  create table team_members (
    team   uuid not null,
    member uuid not null,
    primary key (team, member)
  );
  create index team_members_of on team_members (member);
  comment on table team_members is 'Members of teams.';
  comment on column team_members.team is 'Refers to teams.';
  comment on column team_members.member is 'Refers to users.';

  -- ---- datasets --------------------------------------------------------------------------------------------------------------------
  create table datasets (
    id          uuid        primary key,
    version     integer     not null,
    name        text        not null,
    description text,
    owner_id    uuid        not null,
    created_at  timestamptz not null,
    deleted     boolean     not null
  );
  create index datasets_newest on datasets (created_at, id) where not deleted;
  comment on table datasets is 'Datasets. Their images and results have their grants.';
  comment on column datasets.version is 'Version of the stream.';
  comment on column datasets.owner_id is 'Owner. Refers to users.';

  create table dataset_access (
    subject uuid not null,
    dataset uuid not null,
    role    text not null,
    primary key (subject, dataset)
  );
  create index dataset_access_of on dataset_access (dataset);
  comment on table dataset_access is 'Grants on datasets. All administrators share one subject, with one row for each dataset.';
  comment on column dataset_access.subject is 'User or team that has the grant, or the subject of administrators. Refers to users.';
  comment on column dataset_access.dataset is 'Refers to datasets.';
  comment on column dataset_access.role is 'Grant: viewer, analyst, editor or owner.';

  create table effective_access (
    subject uuid not null,
    dataset uuid not null,
    role    text not null,
    primary key (subject, dataset)
  );
  comment on table effective_access is 'What each subject may do with datasets: the highest of its own grant and those of its teams. Triggers write it.';
  comment on column effective_access.subject is 'User or team, the subject of administrators, or an API key that is limited to datasets.';
  comment on column effective_access.dataset is 'Refers to datasets.';
  comment on column effective_access.role is 'Grant: viewer, analyst, editor or owner.';
  create trigger access_added after insert on dataset_access
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on dataset_access
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on dataset_access
    referencing old table as changed for each statement execute function ops.follow_access();
  create trigger access_added after insert on team_members
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on team_members
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on team_members
    referencing old table as changed for each statement execute function ops.follow_access();
  create trigger access_added after insert on teams
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on teams
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on teams
    referencing old table as changed for each statement execute function ops.follow_access();
  create trigger access_added after insert on api_keys
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_changed after update on api_keys
    referencing new table as changed for each statement execute function ops.follow_access();
  create trigger access_removed after delete on api_keys
    referencing old table as changed for each statement execute function ops.follow_access();

  create view visible as
    select a.subject, a.dataset, a.role from effective_access a join datasets d on d.id = a.dataset where not d.deleted;
  comment on view visible is 'Effective grants on datasets that are not deleted. Every query of users joins it.';

  -- ---- images and devices ----------------------------------------------------------------------------------------------------------
  create table images (
    id              uuid        primary key,
    version         integer     not null,
    dataset_id      uuid        not null,
    device_id       uuid,
    filename        text        not null collate "C",
    sha256          text        not null,
    size            bigint      not null,
    media_type      text        not null,
    width           integer     not null,
    height          integer     not null,
    bands           integer,
    dtype           text,
    pages           integer,
    axes            text,
    pixel_size_um   double precision,
    uploaded_by     uuid        not null,
    uploaded_at     timestamptz not null,
    analyzed        boolean     not null,
    accepted        boolean     not null,
    rejected        text,
    rejected_detail text,
    deleted         boolean     not null,
    position        bigint      not null,
    path            text,
    reader          integer,
    warnings        jsonb       not null default '[]'
  ) with (fillfactor = 85);
  create index images_newest_of_all on images (uploaded_at, id) where not deleted;
  create index images_newest on images (dataset_id, uploaded_at, id) where not deleted;
  create index images_named on images (dataset_id, filename, id) where not deleted;
  create index images_planned on images (dataset_id, position) where not deleted and rejected is null;
  create index images_of_blob on images using hash (sha256) where not deleted;
  create index images_of_device on images (device_id, uploaded_at, id) where not deleted and device_id is not null;
  comment on table images is 'Uploaded images.';
  comment on column images.version is 'Version of the stream.';
  comment on column images.dataset_id is 'Refers to datasets.';
  comment on column images.device_id is 'Device that took the image. Refers to devices.';
  comment on column images.filename is 'File name without folders, in Unicode NFC.';
  comment on column images.sha256 is 'SHA-256 of the file in hexadecimal; names the blob.';
  comment on column images.size is 'Bytes of the file.';
  comment on column images.width is 'Pixels; as the file header claims, until the image is accepted.';
  comment on column images.height is 'Pixels; as the file header claims, until the image is accepted.';
  comment on column images.bands is 'Bands of a pixel; null before the inspection.';
  comment on column images.dtype is 'Number format of a band, such as uint16; null before the inspection.';
  comment on column images.pages is 'Pages in the main chain of the file; null before the inspection.';
  comment on column images.axes is 'Axes from slowest to fastest, such as YXS; null before the inspection.';
  comment on column images.pixel_size_um is 'Edge of a pixel in micrometres; null if the file does not state it.';
  comment on column images.uploaded_by is 'Refers to users.';
  comment on column images.analyzed is 'A model was run on the image, or a user marked it so.';
  comment on column images.accepted is 'The whole file was decoded.';
  comment on column images.rejected is 'Code of the reason for a rejection; null if there was none.';
  comment on column images.rejected_detail is 'The reason in a sentence.';
  comment on column images.position is 'Position of the upload. A job covers the images before its own position.';
  comment on column images.path is 'Path below the uploaded folder; null if none was sent.';
  comment on column images.reader is 'Reader version that decoded the file; null before the inspection.';
  comment on column images.warnings is 'List of {code, detail}: what in the file was ignored, assumed or converted.';

  create table devices (
    id               uuid        primary key,
    version          integer     not null,
    name             text        not null,
    hostname         text        not null,
    location         text,
    firmware_version text,
    registered_at    timestamptz not null,
    online           boolean     not null,
    last_seen        timestamptz,
    removed          boolean     not null
  );
  comment on table devices is 'Microscopes and cameras.';
  comment on column devices.version is 'Version of the stream.';
  comment on column devices.last_seen is 'Time when the device last came online. Later heartbeats: ops.devices_seen.';

  -- ---- models and jobs -------------------------------------------------------------------------------------------------------------
  create table models (
    id          uuid        primary key,
    version     integer     not null,
    name        text        not null,
    description text        not null,
    versions    jsonb       not null,
    aliases     jsonb       not null,
    created_at  timestamptz not null,
    retired     boolean     not null,
    promoters   uuid[],
    promoter_teams uuid[]
  );
  comment on table models is 'Models and their versions.';
  comment on column models.version is 'Version of the stream.';
  comment on column models.versions is 'List of {number, sha256, size, labels, review_below, added_at, added_by, digest, package, kind, label_texts, release, unit, description, checks}.';
  comment on column models.aliases is 'Number of a version by alias, such as production.';
  comment on column models.retired is 'The model accepts no new jobs.';
  comment on column models.promoters is 'Users who may move its aliases and retire it; null if there are none. Refers to users.';
  comment on column models.promoter_teams is 'Teams whose members may do so; null if there are none. Refers to teams.';

  create table model_checks (
    id           uuid        primary key,
    version      integer     not null,
    status       text        not null,
    requested_by uuid        not null,
    requested_at timestamptz not null,
    filename     text,
    sha256       text        not null,
    size         bigint,
    model_id     uuid,
    model_name   text,
    number       integer,
    answered_at  timestamptz,
    report       jsonb,
    code         text,
    detail       text,
    file         text,
    field        text
  );
  create index model_checks_newest on model_checks (requested_at, id);
  create index model_checks_of on model_checks (requested_by, requested_at, id);
  comment on table model_checks is 'Checks of uploaded model packages, and of versions again.';
  comment on column model_checks.version is 'Version of the stream.';
  comment on column model_checks.status is 'pending, passed or failed.';
  comment on column model_checks.requested_by is 'Refers to users.';
  comment on column model_checks.filename is 'Name of the uploaded file; null for a test of a known version.';
  comment on column model_checks.sha256 is 'SHA-256 of the package in hexadecimal; names the blob.';
  comment on column model_checks.size is 'Bytes of the package; null for a test of a known version.';
  comment on column model_checks.model_id is 'Model to which the package belongs, once that is known. Refers to models.';
  comment on column model_checks.number is 'Number of the version.';
  comment on column model_checks.answered_at is 'Time of the answer; null while the check is pending.';
  comment on column model_checks.report is 'What the check measured; null unless it passed.';
  comment on column model_checks.code is 'Code of the reason why it failed.';
  comment on column model_checks.detail is 'The reason in a sentence.';
  comment on column model_checks.file is 'File of the package that is at fault; null if that is not one file.';
  comment on column model_checks.field is 'Field of the file that is at fault.';

  create table classifications (
    id            uuid             primary key,
    version       integer          not null,
    dataset_id    uuid             not null,
    image_id      uuid,
    model_id      uuid             not null,
    model_name    text             not null,
    model_version integer          not null,
    model_sha256  text             not null,
    threshold     double precision not null,
    created_by    uuid             not null,
    created_at    timestamptz      not null,
    updated_at    timestamptz      not null,
    status        text             not null,
    planned       boolean          not null,
    images        integer          not null,
    chunks        integer          not null,
    judged        integer          not null,
    succeeded     integer          not null,
    failed        integer          not null,
    reason        text,
    deleted       boolean          not null,
    position      bigint           not null,
    planes        jsonb,
    selected      uuid[],
    filter        jsonb,
    path          text,
    external      boolean          not null default false,
    priority      text             not null default 'normal',
    deadline      timestamptz,
    top_k         integer,
    fresh         boolean          not null default false,
    retry_of      uuid,
    started_at    timestamptz,
    last_result_at timestamptz
  ) with (fillfactor = 70);
  create index classifications_newest_of_all on classifications (created_at, id) where not deleted;
  create index classifications_newest on classifications (dataset_id, created_at, id) where not deleted;
  create index classifications_of_image on classifications (image_id) where image_id is not null;
  create index classifications_open on classifications (position) where status in ('pending', 'running') and not deleted;
  comment on table classifications is 'Jobs and their progress.';
  comment on column classifications.version is 'Version of the stream.';
  comment on column classifications.dataset_id is 'Dataset that the job covers, or that holds its image. Refers to datasets.';
  comment on column classifications.image_id is 'The only image of the job; null for a whole dataset. Refers to images.';
  comment on column classifications.model_id is 'Refers to models.';
  comment on column classifications.model_version is 'Number of the model version.';
  comment on column classifications.threshold is 'Confidence below which a result is to be reviewed.';
  comment on column classifications.created_by is 'Refers to users.';
  comment on column classifications.status is 'pending, running, completed, failed or cancelled.';
  comment on column classifications.planned is 'All parts of the plan are recorded.';
  comment on column classifications.images is 'Images in the plan.';
  comment on column classifications.chunks is 'Chunks in the plan.';
  comment on column classifications.judged is 'Chunks that have results.';
  comment on column classifications.succeeded is 'Images with a result.';
  comment on column classifications.failed is 'Images with a failure.';
  comment on column classifications.reason is 'Why the job failed.';
  comment on column classifications.position is 'Position of the request.';
  comment on column classifications.planes is 'Planes and channels that the caller chose: {z, c, t}; null if the model chooses.';
  comment on column classifications.selected is 'Images of the dataset that the caller listed; null if there is no list. Refers to images.';
  comment on column classifications.filter is 'What holds for the images that the job covers; null if nothing was asked.';
  comment on column classifications.path is 'Pattern for the relative path of the images; null if nothing was asked.';
  comment on column classifications.external is 'A program outside of the system classifies.';
  comment on column classifications.priority is 'low, normal or high: the order among the jobs of a person.';
  comment on column classifications.deadline is 'Time at which the job ends; null if it has none.';
  comment on column classifications.top_k is 'Scores that results show; null for all.';
  comment on column classifications.fresh is 'No earlier result is reused.';
  comment on column classifications.retry_of is 'Job whose failed images this one classifies again. Refers to classifications.';
  comment on column classifications.started_at is 'Time of the first part of the plan.';
  comment on column classifications.last_result_at is 'Time of the newest results.';

  create table work (
    id         uuid    primary key,
    kind       text    not null,
    job        uuid,
    number     integer,
    dataset_id uuid,
    images     jsonb   not null,
    position   bigint  not null
  );
  create index work_of_job on work (job, number) where job is not null;
  create index work_to_inspect on work (position) where kind = 'inspect';
  create index work_to_check on work (position) where kind = 'check';
  comment on table work is 'Work items: chunks to classify, images to inspect and models to check. The row is deleted when the work is done.';
  comment on column work.id is 'Id of the chunk, the image or the check.';
  comment on column work.kind is 'classify, inspect or check.';
  comment on column work.job is 'Job of a chunk. Refers to classifications.';
  comment on column work.number is 'Number of a chunk in its job.';
  comment on column work.dataset_id is 'Null for a check. Refers to datasets.';
  comment on column work.images is 'List of {id, sha256}.';
  comment on column work.position is 'Position of the plan, the upload or the request.';

  create table failures (
    id                uuid        primary key,
    classification_id uuid        not null,
    image_id          uuid        not null,
    dataset_id        uuid        not null,
    reason            text        not null,
    detail            text        not null,
    created_at        timestamptz not null
  );
  create index failures_of_job on failures (classification_id, created_at, id);
  comment on table failures is 'Images for which a job has no result.';
  comment on column failures.classification_id is 'Refers to classifications.';
  comment on column failures.image_id is 'Refers to images.';
  comment on column failures.dataset_id is 'Refers to datasets.';
  comment on column failures.reason is 'Code of the reason.';
  comment on column failures.detail is 'The reason in a sentence.';

  -- ---- results ---------------------------------------------------------------------------------------------------------------------
  create table results (
    id                uuid             primary key,
    classification_id uuid             not null,
    image_id          uuid             not null,
    dataset_id        uuid             not null,
    label             text             not null,
    confidence        double precision not null,
    verdict           text             not null,
    model_name        text             not null,
    model_version     integer          not null,
    scores            jsonb            not null,
    created_at        timestamptz      not null,
    hidden            boolean          not null,
    warnings          jsonb            not null default '[]',
    value             double precision,
    position          bigint           not null default 0,
    sha256            text             not null default '',
    device_id         uuid,
    reused            uuid,
    original          jsonb
  );
  create index results_newest on results (dataset_id, created_at, id)
    include (image_id, confidence, model_name, model_version, position) where not hidden;
  create index results_of_label on results (dataset_id, label, created_at, id) where not hidden;
  create index results_of_verdict on results (dataset_id, verdict, created_at, id) where not hidden and verdict <> 'clear';
  create index results_of_model on results (dataset_id, model_name, model_version) where not hidden;
  create index results_of_job on results (classification_id, created_at, id) include (dataset_id, confidence) where not hidden;
  create index results_of_image on results (image_id, model_name, position) include (hidden);
  comment on table results is 'Results: one for each image of a job.';
  comment on column results.classification_id is 'Refers to classifications.';
  comment on column results.image_id is 'Refers to images.';
  comment on column results.dataset_id is 'Refers to datasets.';
  comment on column results.label is 'Label that applies best, or the name of a measured quantity.';
  comment on column results.confidence is 'Score of the label, 0 to 1; 0 for a measured quantity.';
  comment on column results.verdict is 'clear, needs_review or out_of_domain.';
  comment on column results.scores is 'Score of each label, 0 to 1.';
  comment on column results.hidden is 'The job or the image was deleted.';
  comment on column results.warnings is 'Warnings of the image when it was classified.';
  comment on column results.value is 'Number that a regression gave; null for labels.';
  comment on column results.position is 'Position of the event.';
  comment on column results.sha256 is 'SHA-256 of the image in hexadecimal.';
  comment on column results.device_id is 'Device that took the image. Refers to devices.';
  comment on column results.reused is 'Earlier result that this one repeats; null if the model was run. Refers to results.';
  comment on column results.original is 'What the model said: {label, confidence, verdict}; null while no policy changed it.';

  -- ---- policies -------------------------------------------------------------------------------------------------------------------
  create table policies (
    id         uuid        primary key,
    version    integer     not null,
    scope      text        not null,
    target_id  uuid        not null,
    dataset_id uuid,
    rules      jsonb,
    set_by     uuid        not null,
    set_at     timestamptz not null,
    position   bigint      not null
  );
  comment on table policies is 'Policies: the rules by which labels and verdicts follow from scores.';
  comment on column policies.version is 'Version of the stream.';
  comment on column policies.scope is 'job, dataset or model.';
  comment on column policies.target_id is 'Id of the job, dataset or model.';
  comment on column policies.dataset_id is 'Dataset of the job, or the dataset itself; null for a model. Refers to datasets.';
  comment on column policies.rules is 'The rules; null for a policy that was withdrawn.';
  comment on column policies.set_by is 'Refers to users.';
  comment on column policies.position is 'Position of the last change.';

  create table policy_applications (
    id         uuid   primary key,
    position   bigint not null,
    reached    jsonb  not null,
    applied_at timestamptz
  );
  comment on table policy_applications is 'How far the results follow the last change of each policy.';
  comment on column policy_applications.id is 'Refers to policies.';
  comment on column policy_applications.position is 'Position of the change.';
  comment on column policy_applications.reached is 'The last result that was derived again.';
  comment on column policy_applications.applied_at is 'When all results followed the change; null while they are derived again.';

  create index results_hidden on results (dataset_id, created_at, id) where hidden;  -- policies change hidden results too

  -- ---- statistics -----------------------------------------------------------------------------------------------------------------

  create table tallies (
    dataset_id uuid        not null,
    minute     timestamptz not null,
    count      bigint      not null,
    micros     bigint      not null,
    measured   bigint      not null default 0,
    primary key (dataset_id, minute)
  ) with (fillfactor = 70);
  comment on table tallies is 'Results of each dataset and minute. Triggers on results write it.';
  comment on column tallies.dataset_id is 'Refers to datasets.';
  comment on column tallies.count is 'Results that are not hidden and repeat no earlier one.';
  comment on column tallies.micros is 'Sum of their confidence, in millionths.';
  comment on column tallies.measured is 'How many of them are numbers, which have no confidence.';

  create table statistics (
    dataset_id    uuid      not null,
    day           date      not null,
    model_name    text      not null,
    model_version integer   not null,
    device_id     uuid      not null,
    label         text      not null,
    verdict       text      not null,
    count         bigint    not null,
    micros        bigint    not null,
    measured      bigint    not null,
    total         numeric   not null,
    bins          bigint[]  not null,
    primary key (dataset_id, day, model_name, model_version, device_id, label, verdict)
  ) with (fillfactor = 50);
  create index statistics_of_day on statistics (day);
  create trigger tally_added after insert on results
    referencing new table as changed for each statement execute function ops.count_results('1');
  create trigger tally_counted after update on results
    referencing new table as changed for each statement execute function ops.count_results('1');
  create trigger tally_uncounted after update on results
    referencing old table as changed for each statement execute function ops.count_results('-1');
  create trigger tally_removed after delete on results
    referencing old table as changed for each statement execute function ops.count_results('-1');
  comment on table statistics is 'Results of each day, by all that they can be grouped by. Triggers on results write it.';
  comment on column statistics.dataset_id is 'Refers to datasets.';
  comment on column statistics.day is 'Day of the results, in UTC.';
  comment on column statistics.model_version is 'Number of the model version.';
  comment on column statistics.device_id is 'Device of the image when it was classified; all zeros if it names none. Refers to devices.';
  comment on column statistics.label is 'Label in force, or the name of a measured quantity.';
  comment on column statistics.verdict is 'Verdict in force: clear, needs_review or out_of_domain.';
  comment on column statistics.count is 'Results that are not hidden and repeat no earlier one.';
  comment on column statistics.micros is 'Sum of their confidence, in millionths.';
  comment on column statistics.measured is 'How many of them are numbers, which have no confidence.';
  comment on column statistics.total is 'Sum of these numbers.';
  comment on column statistics.bins is 'How many of the others have a confidence from 0 to 0.05, from 0.05 to 0.1, and so on: 20 bins.';

  create table outdated_results (
    id       uuid    primary key,
    image_id uuid    not null,
    reader   integer not null
  );
  comment on table outdated_results is 'Results that were computed from other pixels than a newer reader gives.';
  comment on column outdated_results.id is 'Id of the result. Refers to results.';
  comment on column outdated_results.image_id is 'Refers to images.';
  comment on column outdated_results.reader is 'Reader version that gives other pixels.';

  -- ---- activity --------------------------------------------------------------------------------------------------------------------
  create table activity (
    position bigint      primary key,
    at       timestamptz not null,
    type     text        not null,
    stream   uuid        not null,
    actor    uuid        not null,
    dataset  uuid,
    subjects uuid[]      not null
  );
  create index activity_about on activity using gin (subjects);
  create index activity_of_dataset on activity (dataset, position) where dataset is not null;
  create index activity_of_actor on activity (actor, position) where type <> 'ChunkJudged';
  create index activity_of_account on activity ((subjects[cardinality(subjects)]), position)
    where dataset is null or type = any (array['DatasetShared', 'DatasetShareWithdrawn', 'DatasetTransferred']);
  comment on table activity is 'All events, without their content: for live events and audit trails.';
  comment on column activity.position is 'Position of the event.';
  comment on column activity.at is 'Time of the event.';
  comment on column activity.type is 'Type of the event.';
  comment on column activity.stream is 'Stream of the event.';
  comment on column activity.actor is 'User, service or part of the system that caused the event.';
  comment on column activity.dataset is 'Dataset of the event; null if it has none. Refers to datasets.';
  comment on column activity.subjects is 'Ids of everything that the event touches, its stream first.';

  -- ---- rights ----------------------------------------------------------------------------------------------------------------------
  execute format('grant usage on schema %I to bioscope_app, bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference', target);
  execute format('grant select, insert, update, delete on all tables in schema %I to bioscope_app, bioscope_projector', target);
  execute format('grant select on all tables in schema %I to bioscope_api', target);
  grant select on checkpoint to bioscope_relay, bioscope_inference;
  grant select on models to bioscope_inference;
end $$;

-- ---- the live read models --------------------------------------------------------------------------------------------------------------
create table read.registrations (
  id           uuid        primary key,
  requested_at timestamptz not null
);
create index registrations_oldest on read.registrations (requested_at, id);
comment on table read.registrations is 'Registrations whose address is not verified yet.';

create table read.invitations (
  id         uuid        primary key,
  version    integer     not null,
  email      text,
  role       text        not null,
  invited_by uuid        not null,
  invited_at timestamptz not null,
  sent_at    timestamptz not null,
  status     text        not null,
  user_id    uuid
);
create index invitations_newest on read.invitations (invited_at, id);
comment on table read.invitations is 'Invitations to create an account.';
comment on column read.invitations.version is 'Version of the stream.';
comment on column read.invitations.email is 'Address of the person; null once the invitation was accepted or withdrawn.';
comment on column read.invitations.role is 'Role of the account: viewer, analyst, researcher or admin.';
comment on column read.invitations.invited_by is 'Refers to users.';
comment on column read.invitations.sent_at is 'When it was last sent.';
comment on column read.invitations.status is 'open, accepted or withdrawn.';
comment on column read.invitations.user_id is 'Account that was created; null before. Refers to users.';

create table read.service_accounts (
  id         uuid        primary key,
  version    integer     not null,
  name       text        not null,
  created_by uuid        not null,
  created_at timestamptz not null,
  deleted    boolean     not null
);
create index service_accounts_listed on read.service_accounts (created_at, id) where not deleted;
comment on table read.service_accounts is 'Accounts of programs.';
comment on column read.service_accounts.version is 'Version of the stream.';
comment on column read.service_accounts.created_by is 'Refers to users.';

create table read.api_keys (
  id          uuid        primary key,
  version     integer     not null,
  owner_id    uuid        not null,
  owner_kind  text        not null,
  scopes      text[]      not null,
  dataset_ids uuid[],
  issued_by   uuid        not null,
  issued_at   timestamptz not null,
  expires_at  timestamptz not null,
  revoked_at  timestamptz
);
create index api_keys_newest on read.api_keys (issued_at, id);
create index api_keys_of_owner on read.api_keys (owner_id, issued_at, id);
comment on table read.api_keys is 'Keys of programs: of service accounts, and of users. Names are in the log only.';
comment on column read.api_keys.version is 'Version of the stream.';
comment on column read.api_keys.owner_id is 'Service account or user.';
comment on column read.api_keys.owner_kind is 'service or user.';
comment on column read.api_keys.scopes is 'What the key allows.';
comment on column read.api_keys.dataset_ids is 'Datasets that the key reaches; null for all of its owner.';
comment on column read.api_keys.issued_by is 'Refers to users.';
comment on column read.api_keys.revoked_at is 'When it was revoked; null for a key that was not.';

create table read.teams (
  id         uuid        primary key,
  version    integer     not null,
  name       text        not null,
  owner_id   uuid        not null,
  created_at timestamptz not null,
  deleted    boolean     not null
);
create index teams_listed on read.teams (created_at, id) where not deleted;
comment on table read.teams is 'Teams.';
comment on column read.teams.version is 'Version of the stream.';
comment on column read.teams.owner_id is 'User who manages the team. Refers to users.';

create table read.team_members (
  team   uuid not null,
  member uuid not null,
  primary key (team, member)
);
create index team_members_of on read.team_members (member);
comment on table read.team_members is 'Members of teams.';
comment on column read.team_members.team is 'Refers to teams.';
comment on column read.team_members.member is 'Refers to users.';

create index activity_of_actor on read.activity (actor, position) where type <> 'ChunkJudged';
alter table read.models add column promoter_teams uuid[];
comment on column read.models.promoter_teams is 'Teams whose members may do so; null if there are none. Refers to teams.';
comment on column read.dataset_access.subject is 'User or team that has the grant, or the subject of administrators. Refers to users.';

create table read.effective_access (
  subject uuid not null,
  dataset uuid not null,
  role    text not null,
  primary key (subject, dataset)
);
comment on table read.effective_access is 'What each subject may do with datasets: the highest of its own grant and those of its teams. Triggers write it.';
comment on column read.effective_access.subject is 'User or team, the subject of administrators, or an API key that is limited to datasets.';
comment on column read.effective_access.dataset is 'Refers to datasets.';
comment on column read.effective_access.role is 'Grant: viewer, analyst, editor or owner.';
insert into read.effective_access (subject, dataset, role) select subject, dataset, role from read.dataset_access;
create trigger access_added after insert on read.dataset_access
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.dataset_access
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.dataset_access
  referencing old table as changed for each statement execute function ops.follow_access();
create trigger access_added after insert on read.team_members
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.team_members
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.team_members
  referencing old table as changed for each statement execute function ops.follow_access();
create trigger access_added after insert on read.teams
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.teams
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.teams
  referencing old table as changed for each statement execute function ops.follow_access();
create trigger access_added after insert on read.api_keys
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.api_keys
  referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.api_keys
  referencing old table as changed for each statement execute function ops.follow_access();
create or replace view read.visible as
  select a.subject, a.dataset, a.role from read.effective_access a join read.datasets d on d.id = a.dataset where not d.deleted;
comment on view read.visible is 'Effective grants on datasets that are not deleted. Every query of users joins it.';

-- Earlier logs have no events of the new tables, so read models that are not empty need no rebuild.
insert into read.folds (name, version)
  select name, 1 from read.checkpoint,
    unnest(array['registrations', 'invitations', 'service_accounts', 'api_keys', 'teams', 'team_members']) name
  where projection = 'main' and position > 0;

-- Transfers are among the events that concern an account, too.
drop index read.activity_of_account;
create index activity_of_account on read.activity ((subjects[cardinality(subjects)]), position)
  where dataset is null or type = any (array['DatasetShared', 'DatasetShareWithdrawn', 'DatasetTransferred']);

grant select, insert, update, delete on
  read.registrations, read.invitations, read.service_accounts, read.api_keys, read.teams, read.team_members,
  read.effective_access
  to bioscope_app, bioscope_projector;
grant select on
  read.registrations, read.invitations, read.service_accounts, read.api_keys, read.teams, read.team_members,
  read.effective_access
  to bioscope_api;
