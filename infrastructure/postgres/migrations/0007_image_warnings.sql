-- Oldest release: 0.1.0
-- What of an image file was not used, assumed or converted; which reader decoded it; results that were computed from other pixels.

create procedure ops.add_image_warnings(target text) language plpgsql as $$
begin
  execute format('alter table %I.images add column reader integer, add column warnings jsonb not null default ''[]''', target);
  execute format('alter table %I.results add column warnings jsonb not null default ''[]''', target);
  execute format(
    'create table %I.outdated_results (
      id       uuid primary key,                         -- of the result
      image_id uuid not null,
      reader   integer not null                          -- that gives other pixels than those that the result was computed from
    )',
    target
  );
  execute format('grant select, insert, update, delete on %I.outdated_results to bioscope_app', target);
end $$;
revoke execute on procedure ops.add_image_warnings from public;

create or replace procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_first_read_models(target);
  call ops.index_newest(target);
  call ops.add_image_paths(target);
  call ops.add_image_warnings(target);
end $$;

call ops.add_image_warnings('read');
update read.images set reader = 1 where accepted;
