-- Oldest release: 0.1.0
-- A subscription walks the datasets that its account may see, not the whole log. An account also hears of what concerns itself: such an event
-- belongs to no dataset or is a share, and names the account last. The projector waits while these indexes are made.

create procedure ops.index_activity(target text) language plpgsql as $$
begin
  execute format('create index activity_of_dataset on %I.activity (dataset, position) where dataset is not null', target);
  execute format(
    'create index activity_of_account on %I.activity ((subjects[cardinality(subjects)]), position)
      where dataset is null or type = any (array[''DatasetShared'', ''DatasetShareWithdrawn''])',
    target
  );
end $$;
revoke execute on procedure ops.index_activity from public;

alter procedure ops.create_read_models rename to create_read_models_without_activity_by_dataset;
create procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_read_models_without_activity_by_dataset(target);
  call ops.index_activity(target);
end $$;
revoke execute on procedure ops.create_read_models from public;

call ops.index_activity('read');
