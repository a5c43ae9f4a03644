#!/bin/sh
# Create the users of the object store and the bucket: one user for each process, and one for commands
# on the server, which owns the bucket. Runs at each start, in the image of the S3 server. Only this
# script has the administrator's credentials (ADMIN_*). The bucket's policy sets the rights of each
# user: see objects_policy.py. The script may be repeated; a changed secret takes effect.
set -eu

named() { awk -v name="$1" '$1 == name { found = 1 } END { exit !found }'; }

users=$(versitygw admin list-users)
user() {
  if printf '%s\n' "$users" | named "$1"; then
    versitygw admin update-user --access "$1" --secret "$2" --role user
  else
    versitygw admin create-user --access "$1" --secret "$2" --role user
  fi
}
user "$BIOSCOPE_APP_BLOBS_KEY" "$BIOSCOPE_APP_BLOBS_SECRET"
user "$BIOSCOPE_API_BLOBS_KEY" "$BIOSCOPE_API_BLOBS_SECRET"
user "$BIOSCOPE_RELAY_BLOBS_KEY" "$BIOSCOPE_RELAY_BLOBS_SECRET"
user "$BIOSCOPE_PROJECTOR_BLOBS_KEY" "$BIOSCOPE_PROJECTOR_BLOBS_SECRET"
user "$BIOSCOPE_INFERENCE_BLOBS_KEY" "$BIOSCOPE_INFERENCE_BLOBS_SECRET"

buckets=$(versitygw admin list-buckets)
if printf '%s\n' "$buckets" | named bioscope; then
  versitygw admin change-bucket-owner --owner "$BIOSCOPE_APP_BLOBS_KEY" --bucket bioscope
else
  versitygw admin create-bucket --owner "$BIOSCOPE_APP_BLOBS_KEY" --bucket bioscope
fi
