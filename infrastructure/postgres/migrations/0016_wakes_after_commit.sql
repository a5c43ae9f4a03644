-- Oldest release: 0.1.0
-- A transaction that notifies takes a lock of the whole server while it commits: databases on one server waited for each other's disk. Sessions
-- with bioscope.wakes = 'after_commit' send their wake-ups themselves, after the commit. For sessions of earlier releases, which may run beside
-- newer ones while a system is upgraded, the functions notify as before.

-- Only the notification changes, whatever earlier migrations made of the function.
create procedure ops.leave_wakes_to_sessions(target regproc) language plpgsql as $$
declare
  body  text := pg_get_functiondef(target);
  plain text := substring(body from 'perform pg_notify\([^;]*\);');
begin
  if plain is null then
    raise exception '% does not notify', target;
  end if;
  execute replace(body, plain, format(
    'if current_setting(''bioscope.wakes'', true) is distinct from ''after_commit'' then %s end if;', plain
  ));
end $$;
call ops.leave_wakes_to_sessions('es.append');
call ops.leave_wakes_to_sessions('ops.advance');
drop procedure ops.leave_wakes_to_sessions;
