#!/bin/sh
# Runs at each start, in the image of the S3 server: the bucket, and the user who owns it and can do nothing else. The processes sign in as
# this user; the administrator's credentials (ADMIN_*) stay here. Harmless to repeat; a changed secret takes effect.
set -eu

named() { awk -v name="$1" '$1 == name { found = 1 } END { exit !found }'; }

users=$(versitygw admin list-users)
if printf '%s\n' "$users" | named "$BIOSCOPE_BLOBS_KEY"; then
  versitygw admin update-user --access "$BIOSCOPE_BLOBS_KEY" --secret "$BIOSCOPE_BLOBS_SECRET" --role user
else
  versitygw admin create-user --access "$BIOSCOPE_BLOBS_KEY" --secret "$BIOSCOPE_BLOBS_SECRET" --role user
fi

buckets=$(versitygw admin list-buckets)
if printf '%s\n' "$buckets" | named bioscope; then
  versitygw admin change-bucket-owner --owner "$BIOSCOPE_BLOBS_KEY" --bucket bioscope
else
  versitygw admin create-bucket --owner "$BIOSCOPE_BLOBS_KEY" --bucket bioscope
fi
