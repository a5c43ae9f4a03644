#!/bin/sh
# Runs once, on an empty database: the role of the processes, which cannot write the log except through es.append.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d bioscope -v password="$BIOSCOPE_APP_PASSWORD" <<'SQL'
create role bioscope_app login password :'password';
SQL
