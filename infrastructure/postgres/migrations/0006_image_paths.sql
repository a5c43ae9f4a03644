-- Oldest release: 0.1.0
-- Images keep the path below the folder that was uploaded. File names are searched in NFC.

create procedure ops.add_image_paths(target text) language plpgsql as $$
begin
  execute format('alter table %I.images add column path text', target);
end $$;
revoke execute on procedure ops.add_image_paths from public;

create or replace procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_first_read_models(target);
  call ops.index_newest(target);
  call ops.add_image_paths(target);
end $$;

call ops.add_image_paths('read');
update read.images set filename = normalize(filename, nfc) where filename is not nfc normalized;
