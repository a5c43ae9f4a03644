-- Oldest release: 0.1.0
-- Command ids and refresh tokens that nobody needs any more can be removed, a range of pages at a time: no index is needed for that, so appends
-- cost what they did. The projector may do that, and nothing else to these tables.

-- Each takes the page of the table to begin at, and says how many rows went and where to go on: null at the end.
create function es.page_range(table_name regclass, first_page bigint, pages bigint, out first_row tid, out beyond tid, out next_page bigint)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
  select format('(%s,0)', greatest(first_page, 0))::tid, format('(%s,0)', greatest(first_page, 0) + pages)::tid,
    case when (greatest(first_page, 0) + pages) * current_setting('block_size')::bigint < pg_relation_size(table_name)
      then greatest(first_page, 0) + pages end;
end;

-- A command with an Idempotency-Key may be repeated for 30 days, any other one for a day: it is repeated within seconds, by a process that lost the
-- answer to its COMMIT.
create function es.prune_commands(first_page bigint, out removed bigint, out next_page bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  part record := es.page_range('es.commands', first_page, 128);
begin
  delete from es.commands c where c.ctid >= part.first_row and c.ctid < part.beyond
    and c.recorded_at < now() - case when c.digest is null then interval '1 day' else interval '30 days' end;
  get diagnostics removed = row_count;
  next_page := part.next_page;
end $$;

-- Tokens of sessions that have had no valid one for a day. A used token stays while its session lasts: it gives a thief away.
create function es.prune_refresh_tokens(first_page bigint, out removed bigint, out next_page bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  part record := es.page_range('es.refresh_tokens', first_page, 128);
begin
  delete from es.refresh_tokens t where t.ctid >= part.first_row and t.ctid < part.beyond and not exists (
    select from es.refresh_tokens o where o.session_id = t.session_id and o.expires_at > now() - interval '1 day');
  get diagnostics removed = row_count;
  next_page := part.next_page;
end $$;

revoke execute on function es.page_range, es.prune_commands, es.prune_refresh_tokens from public;
grant execute on function es.prune_commands, es.prune_refresh_tokens to bioscope_projector, bioscope_app;
