#!/bin/sh
# Create the database roles and set their passwords: one role for each process, which can write to the
# log only through es.append, and bioscope_app for commands on the server. The migrations grant the
# rights of each role. Runs on an empty database; run it by hand after passwords change or roles are
# added. The script may be repeated.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d bioscope \
  -v app="$BIOSCOPE_APP_PASSWORD" -v api="$BIOSCOPE_API_PASSWORD" -v relay="$BIOSCOPE_RELAY_PASSWORD" \
  -v projector="$BIOSCOPE_PROJECTOR_PASSWORD" -v inference="$BIOSCOPE_INFERENCE_PASSWORD" <<'SQL'
select format('create role %I login', name)
  from unnest(array['bioscope_app', 'bioscope_api', 'bioscope_relay', 'bioscope_projector', 'bioscope_inference']) name
  where not exists (select from pg_roles where rolname = name)
\gexec
alter role bioscope_app password :'app';
alter role bioscope_api password :'api';
alter role bioscope_relay password :'relay';
alter role bioscope_projector password :'projector';
alter role bioscope_inference password :'inference';
SQL
