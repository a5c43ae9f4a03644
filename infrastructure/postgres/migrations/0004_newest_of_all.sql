-- Oldest release: 0.1.0
-- Lists over very many datasets are walked newest first, until the page is full.

alter procedure ops.create_read_models rename to create_first_read_models;

create procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_first_read_models(target);
  call ops.index_newest(target);
end $$;

create procedure ops.index_newest(target text) language plpgsql as $$
begin
  execute format('create index datasets_newest on %I.datasets (created_at, id) where not deleted', target);
  execute format('create index classifications_newest_of_all on %I.classifications (created_at, id) where not deleted', target);
end $$;
revoke execute on procedure ops.create_read_models, ops.index_newest from public;

call ops.index_newest('read');
