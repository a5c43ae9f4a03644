-- Oldest release: 0.1.0
-- The uses of a key are removed 400 days after the key ended and was used last. Those of a key that the read models do not know stay.

-- A range of pages at a time, as in migration 0019. A signed service token works for at most 90 days after its issue, so after its first use.
create function ops.prune_key_uses(first_page bigint, out removed bigint, out next_page bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  part record := es.page_range('ops.key_uses', first_page, 128);
begin
  delete from ops.key_uses u where u.ctid >= part.first_row and u.ctid < part.beyond
    and u.last_at < now() - interval '400 days' and now() - interval '400 days' > case
    when u.legacy_name is null then (select least(k.expires_at, k.revoked_at) from read.api_keys k where k.id = u.key)
    else least(u.legacy_expiry, u.first_at + interval '90 days') end;
  get diagnostics removed = row_count;
  next_page := part.next_page;
end $$;

revoke execute on function ops.prune_key_uses from public;
grant execute on function ops.prune_key_uses to bioscope_projector, bioscope_app;
comment on table ops.key_uses is
  'The first and last use of each API key. Those of a user are deleted with the user''s password, all others 400 days after the key ended.';
