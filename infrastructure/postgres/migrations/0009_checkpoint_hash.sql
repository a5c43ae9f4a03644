-- Oldest release: 0.1.0
-- The read models show nothing that the log does not hold: the checkpoint carries the hash of the event that it stands at.

create procedure ops.add_checkpoint_hash(target text) language plpgsql as $$
begin
  execute format('alter table %I.checkpoint add column hash bytea not null default sha256(''bioscope'')', target);
end $$;
revoke execute on procedure ops.add_checkpoint_hash from public;

create or replace procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_first_read_models(target);
  call ops.index_newest(target);
  call ops.add_image_paths(target);
  call ops.add_image_warnings(target);
  call ops.add_checkpoint_hash(target);
end $$;

call ops.add_checkpoint_hash('read');
update read.checkpoint c set hash = coalesce((select e.hash from es.events e where e.notification_id = c.position), '')
  where c.position > 0;

-- The hash of the log at a position; null where the log does not reach so far.
create function ops.log_hash(at bigint) returns bytea language sql stable as $$
  select case when at = 0 then sha256('bioscope') else (select e.hash from es.events e where e.notification_id = at) end
$$;
revoke execute on function ops.log_hash from public;
grant execute on function ops.log_hash to bioscope_app;

drop function ops.advance;
create function ops.advance(
  was bigint, was_generation bigint, becomes bigint, becomes_hash bytea, at_cluster text, at_offset bigint, generations integer
) returns void language plpgsql as $$
begin
  update checkpoint
    set position = becomes, hash = becomes_hash,
        cluster = coalesce(at_cluster, cluster), next_offset = coalesce(at_offset, next_offset),
        generation = generation + generations
    where projection = 'main' and position = was and generation = was_generation;
  if not found then
    raise exception 'the checkpoint was moved by somebody else' using errcode = 'BS001';
  end if;
  if becomes_hash is distinct from ops.log_hash(becomes) then
    raise exception 'the log does not hold this event at position %', becomes using errcode = 'BS002';
  end if;
  if current_schema() = 'read' then
    perform pg_notify('bioscope_projected', becomes::text);
  end if;
end $$;
revoke execute on function ops.advance from public;
grant execute on function ops.advance to bioscope_app;
