#!/usr/bin/env bash
# Calls every route of the API with curl (python3 only reads fields of JSON), then deletes what it created.
#
#   bioscope up                                         # in another terminal
#   bioscope users create-admin you@example.org
#   BIOSCOPE_ADMIN_EMAIL=you@example.org BIOSCOPE_ADMIN_PASSWORD=... examples/walkthrough.sh
#
# BIOSCOPE_URL is the address of the API, by default http://127.0.0.1:8000. Each call is printed on stderr before it is made.
set -euo pipefail

URL=${BIOSCOPE_URL:-http://127.0.0.1:8000}
ADMIN_EMAIL=${BIOSCOPE_ADMIN_EMAIL:?set it to the e-mail address of an administrator}
ADMIN_PASSWORD=${BIOSCOPE_ADMIN_PASSWORD:?set it to the password of this administrator}
HERE=$(cd "$(dirname "$0")" && pwd)
PICTURES=("$HERE"/micrographs/basophil/*.jpg)
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
TOKEN=

chapter() { printf '\n== %s\n' "$*" >&2; }
say() { printf '   %s\n' "$*" >&2; }
random() { python3 -c 'import secrets; print(secrets.token_hex(12))'; }
same() { [ "$1" = "$2" ] || { say "expected $2, got $1"; exit 1; }; }

# field NAME.NAME.0: this field of the JSON on stdin; empty if it is null; "#" is the length of a list
field() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = len(value) if name == "#" else value[int(name)] if isinstance(value, list) else value[name]
print("" if value is None else value)' "$1"
}

# call METHOD PATH [curl options]: prints the body of the response; its headers are in $TMP/headers. An error response ends the script.
call() {
  local method=$1 path=$2
  shift 2
  say "$method $path"
  curl --silent --show-error --fail-with-body --max-time 60 -D "$TMP/headers" -X "$method" -H "Authorization: Bearer $TOKEN" "$@" "$URL$path"
}

# send METHOD PATH JSON [curl options]
send() { call "$1" "$2" -H 'Content-Type: application/json' -d "$3" "${@:4}"; }

# refused STATUS METHOD PATH [curl options]: the response must have this status
refused() {
  local expected=$1 method=$2 path=$3
  shift 3
  say "$method $path, expecting $expected"
  same "$(curl --silent -o "$TMP/refusal" -w '%{http_code}' -X "$method" -H "Authorization: Bearer $TOKEN" "$@" "$URL$path")" "$expected"
}

header() { awk -v name="$1" 'tolower($1) == name ":" { sub(/\r$/, ""); print $2 }' "$TMP/headers"; }

chapter "Check the health of the API"
for path in /health /health/live /health/ready /api/health /api/health/live /api/health/ready; do
  TOKEN='' call GET $path > /dev/null
done

chapter "Register two accounts; an administrator assigns their roles"
ME=$(random) && YOU=$(random) && PASSWORD=$(random)
person() { printf '{"email":"%s@example.org","username":"%s","first_name":"Ada","last_name":"Byron","password":"%s"}' "$1" "$1" "$PASSWORD"; }
MY_ID=$(send POST /api/auth/register "$(person "$ME")" | field id)
YOUR_ID=$(send POST /api/auth/register "$(person "$YOU")" | field id)

sign_in() { send POST /api/auth/login "{\"email\":\"$1\",\"password\":\"$2\"}"; }
ADMIN_TOKEN=$(sign_in "$ADMIN_EMAIL" "$ADMIN_PASSWORD" | field access_token)
TOKEN=$ADMIN_TOKEN
send PATCH "/api/users/users/$MY_ID" '{"role":"researcher"}' > /dev/null
send PATCH "/api/users/users/$YOUR_ID" '{"role":"analyst"}' > /dev/null
call GET "/api/users/users?page_size=5" > /dev/null
same "$(call GET "/api/users/users/$MY_ID" | field role)" researcher

chapter "Invite a person, and send a user a mail with a link"
INVITATION=$(send POST /api/invitations "{\"email\":\"guest-$ME@example.org\",\"role\":\"analyst\"}" | field id)
call POST "/api/invitations/$INVITATION/resend" > /dev/null
same "$(call GET '/api/invitations?status=open' | field 0.id)" "$INVITATION"
call DELETE "/api/invitations/$INVITATION"
call POST "/api/users/users/$MY_ID/password-reset" > /dev/null
for path in /api/auth/forgot-password /api/auth/verification; do
  TOKEN='' send POST $path "{\"email\":\"$YOU@example.org\"}" > /dev/null
done

chapter "A link that no mail contains is refused"
NOBODY='"token":"none","username":"nobody","first_name":"No","last_name":"Body"'
for path in /api/auth/verify /api/auth/reset-password; do
  refused 400 POST $path -H 'Content-Type: application/json' -d "{\"token\":\"none\",\"password\":\"$PASSWORD\"}"
done
refused 400 POST /api/auth/confirm-email -H 'Content-Type: application/json' -d '{"token":"none"}'
refused 400 POST /api/auth/accept-invitation -H 'Content-Type: application/json' -d "{$NOBODY,\"password\":\"$PASSWORD\"}"
refused 400 POST /api/auth/bootstrap -H 'Content-Type: application/json' -d "{$NOBODY,\"password\":\"$PASSWORD\",\"email\":\"nobody@example.org\"}"

chapter "Register a device, as an administrator"
DEVICE=$(send POST /api/devices "{\"name\":\"Scope\",\"hostname\":\"scope-$ME\"}" | field id)
send PATCH "/api/devices/$DEVICE" '{"location":"Room 1"}' > /dev/null
send PATCH "/api/devices/$DEVICE/status" '{"is_online":true}' > /dev/null
same "$(call GET "/api/devices/$DEVICE" | field is_online)" True
call GET '/api/devices?is_online=true' > /dev/null

chapter "Sign in"
SIGNED_IN=$(sign_in "$ME@example.org" "$PASSWORD")
MY_TOKEN=$(field access_token <<< "$SIGNED_IN") && MY_REFRESH=$(field refresh_token <<< "$SIGNED_IN")
YOUR_TOKEN=$(call POST /api/auth/login-swagger --data-urlencode "username=$YOU@example.org" --data-urlencode "password=$PASSWORD" | field access_token)
TOKEN=$MY_TOKEN
same "$(call GET /api/users/me | field username)" "$ME"

chapter "Create a dataset; a repeat with the same Idempotency-Key creates no second one"
KEY=$(random)
DATASET=$(send POST /api/datasets '{"name":"Blood smears"}' -H "Idempotency-Key: $KEY" | field id)
same "$(send POST /api/datasets '{"name":"Blood smears"}' -H "Idempotency-Key: $KEY" | field id)" "$DATASET"
call GET /api/datasets > /dev/null

chapter "Change the dataset with If-Match, which prevents overwriting another change"
call GET "/api/datasets/$DATASET" > /dev/null
ETAG=$(header etag)
send PATCH "/api/datasets/$DATASET" '{"description":"May-Grünwald-Giemsa"}' -H "If-Match: $ETAG" > /dev/null
CHANGED_AT=$(header x-event-position)
refused 412 PATCH "/api/datasets/$DATASET" -H 'Content-Type: application/json' -H "If-Match: $ETAG" -d '{"name":"Too late"}'

chapter "Upload images"
IMAGES=()
for picture in "${PICTURES[@]:0:3}"; do
  IMAGES+=("$(call POST /api/images/upload -F "dataset_id=$DATASET" -F "device_id=$DEVICE" -F "file=@$picture" | field id)")
done
IMAGE=${IMAGES[0]}
send PATCH "/api/images/$IMAGE" '{"filename":"first.jpg"}' > /dev/null
same "$(call GET "/api/images?dataset_id=$DATASET&order_by=filename&page_size=2" | field '#')" 2
CURSOR=$(header x-next-cursor)
same "$(call GET "/api/images?dataset_id=$DATASET&order_by=filename&page_size=2&cursor=$CURSOR" | field '#')" 1
refused 415 POST /api/images/upload -F "dataset_id=$DATASET" -F "file=@$0;filename=script.jpg"

say "wait until the image has been inspected"
for _ in $(seq 100); do
  STATUS=$(call GET "/api/images/$IMAGE" 2> /dev/null | field status)
  [ "$STATUS" = pending ] || break
  sleep 0.2
done
same "$STATUS" accepted

chapter "View an image by signed addresses, which need no header and expire"
for what in preview thumbnail download; do
  ADDRESS=$(call GET "/api/images/$IMAGE/$what?expires_in=60" | field url)
  say "GET /api/blobs/..."
  curl --silent --show-error --fail --max-time 60 -o "$TMP/$what" "${ADDRESS/#\//$URL/}"
done
cmp "$TMP/download" "${PICTURES[0]}"

chapter "List the models"
MODEL=$(call GET /api/models | field 0.name)
VERSION=$(call GET "/api/models/$MODEL" | field production)
same "$(call GET "/api/models/$MODEL?as_of=$CHANGED_AT" | field production)" "$VERSION"

chapter "Ask a model directly, by the Open Inference Protocol; nothing is recorded"
for path in health/live health/ready; do
  TOKEN='' call GET "/api/v2/$path" > /dev/null
done
same "$(call GET /api/v2 | field name)" bioscope
tensor() { python3 -c '
import base64, json, sys
data = [base64.b64encode(open(name, "rb").read()).decode() for name in sys.argv[1:]]
print(json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}], "outputs": [{"name": "label"}]}))' "$@"; }
for path in "/api/v2/models/$MODEL" "/api/v2/models/$MODEL/versions/production"; do
  same "$(call GET "$path" | field inputs.0.name)" image
  same "$(call GET "$path/ready" | field ready)" True
  same "$(call POST "$path/infer" --data-binary @- <<< "$(tensor "${PICTURES[@]:0:2}")" | field outputs.0.data.#)" 2
done
same "$(TOKEN='' refused 401 POST "/api/v2/models/$MODEL/infer" && field error < "$TMP/refusal")" "Not authenticated"

chapter "Choose promoters of a model, and the version in production, as an administrator; save its package"
TOKEN=$ADMIN_TOKEN
call PUT "/api/models/$MODEL/promoters/$YOUR_ID"
same "$(call GET "/api/models/$MODEL" | field promoters.0.username)" "$YOU"
KEEP="{\"version\":$VERSION,\"reason\":\"It was in production before\"}"
same "$(TOKEN=$YOUR_TOKEN send PUT "/api/models/$MODEL/aliases/production" "$KEEP" | field production)" "$VERSION"
call DELETE "/api/models/$MODEL/promoters/$YOUR_ID"
TOKEN=$YOUR_TOKEN refused 403 PUT "/api/models/$MODEL/aliases/production" -H 'Content-Type: application/json' -d "$KEEP"
refused 404 POST "/api/models/none-$ME/retire" -H 'Content-Type: application/json' -d '{"reason":"There is no such model"}'
same "$(call GET "/api/models/$MODEL/history?limit=1" | field 0.type)" ModelVersionAdded
call GET "/api/models/$MODEL/versions/$VERSION/package" > "$TMP/model.zip"
python3 -m zipfile -t "$TMP/model.zip" > /dev/null
TOKEN=$MY_TOKEN

# checked CHECK: prints the answer of a check
checked() {
  local answer
  for _ in $(seq 300); do
    answer=$(call GET "/api/model-checks/$1" 2> /dev/null)
    [ "$(field status <<< "$answer")" = pending ] || break
    sleep 0.2
  done
  say "GET /api/model-checks/$1"
  echo "$answer"
}

chapter "Add a model package, which is known already, and test the version again"
CHECK=$(call POST "/api/models?filename=$MODEL.zip" -H 'Content-Type: application/zip' --data-binary "@$TMP/model.zip" | field id)
same "$(checked "$CHECK" | field number)" "$VERSION"
CHECK=$(call POST "/api/models/$MODEL/versions/$VERSION/checks" | field id)
same "$(checked "$CHECK" | field status)" passed
same "$(call GET /api/model-checks | field '#')" 2

chapter "Declare an external classifier, which another program runs"
EXTERNAL="{\"name\":\"theirs-$ME\",\"labels\":[\"round\",\"flat\"],\"review_below\":0.7}"
same "$(send POST /api/models/external "$EXTERNAL" | field kind)" external
same "$(send POST /api/models/external "$EXTERNAL" | field number)" 1
same "$(TOKEN=$ADMIN_TOKEN send POST "/api/models/theirs-$ME/retire" '{"reason":"It was an example"}' | field retired)" True

# until_ended JOB: prints the final status
until_ended() {
  local status
  for _ in $(seq 300); do
    status=$(call GET "/api/classifications/$1" 2> /dev/null | field status)
    case $status in pending | running) sleep 0.2 ;; *) break ;; esac
  done
  echo "$status"
}

chapter "Classify one image, then the whole dataset"
ONE=$(send POST /api/classifications/run "{\"image_id\":\"$IMAGE\"}" | field id)
ALL=$(send POST /api/classifications/run "{\"dataset_id\":\"$DATASET\",\"model_name\":\"$MODEL\",\"model_version\":\"production\"}" | field id)
refused 422 POST /api/classifications/run -H 'Content-Type: application/json' \
  -d "{\"image_id\":\"$IMAGE\",\"planes\":{\"z\":7}}"
same "$(until_ended "$ONE")" completed
same "$(until_ended "$ALL")" completed
same "$(call GET "/api/classifications/$ALL" | field succeeded)" 3
call GET "/api/classifications?dataset_id=$DATASET&status_filter=completed" > /dev/null
same "$(call GET "/api/classifications/$ALL/failures" | field '#')" 0
refused 409 POST "/api/classifications/$ALL/retry"
LIST=$(send POST /api/classifications/run "{\"image_ids\":[\"$IMAGE\"],\"priority\":\"high\"}" | field id)
PART=$(send POST /api/classifications/run "{\"dataset_id\":\"$DATASET\",\"filter\":{\"path\":\"*.jpg\"},\"fresh\":true}" | field id)
same "$(until_ended "$LIST")" completed
same "$(until_ended "$PART")" completed

chapter "Read the results"
RESULT=$(call GET "/api/classification-results/classification/$ALL" | field 0.id)
call GET "/api/classification-results/$RESULT" | python3 -m json.tool
same "$(call GET "/api/classification-results/image/$IMAGE" | field '#')" 2
same "$(call GET "/api/classification-results/image/$IMAGE?versions=all" | field '#')" 4
call GET "/api/classification-results/export?classification_id=$ALL" > /dev/null
call GET "/api/classification-results?classification_id=$ONE" > /dev/null
call GET /api/classification-results/today/statistics > /dev/null
same "$(call GET "/api/statistics/results?dataset_id=$DATASET&model_name=$MODEL&group_by=day,verdict" | field groups.0.measured)" 0
same "$(call GET "/api/statistics/results?dataset_id=$DATASET&model_name=$MODEL" | field groups.0.count)" 3
refused 422 GET "/api/statistics/results?group_by=colour"

chapter "Set a policy: results get another verdict without a new run, and what the model said stays"
POLICY=/api/policies/dataset/$DATASET
STRICT='{"review_below":1.0}'
same "$(send POST "$POLICY/preview" "{\"rules\":$STRICT}" | field complete)" True
send PUT "$POLICY" "{\"rules\":$STRICT,\"reason\":\"A person is to see all of them\"}" > /dev/null
SET_AT=$(grep -i '^x-event-position:' "$TMP/headers" | tr -dc 0-9)
for _ in $(seq 100); do
  [ -z "$(call GET "$POLICY" 2> /dev/null | field applied_at)" ] || break
  sleep 0.1
done
same "$(call GET "$POLICY" | field applied_at | cut -c 1-2)" 20
same "$(call GET "$POLICY" | field rules.review_below)" 1.0
same "$(call GET "$POLICY?as_of=$SET_AT" | field scope)" dataset
same "$(call GET "/api/policies?dataset_id=$DATASET" | field '#')" 1
same "$(call GET "/api/classification-results/$RESULT/policy" | field policy.scope)" dataset
call GET "/api/classification-results/$RESULT?as_of=$((SET_AT - 1))" > /dev/null
send DELETE "$POLICY" '{"reason":"That was an example"}'
same "$(call GET "$POLICY/history" | field '#')" 2

chapter "Cancel a job (409 if it has already ended)"
STOPPED=$(send POST /api/classifications/run "{\"dataset_id\":\"$DATASET\"}" -H 'Prefer: respond-async' | field id)
say "POST /api/classifications/$STOPPED/cancel"
curl --silent -o /dev/null -w '   status %{http_code}\n' -X POST -H "Authorization: Bearer $TOKEN" "$URL/api/classifications/$STOPPED/cancel" >&2
call DELETE "/api/classifications/$STOPPED"

chapter "Share the dataset; a dataset that is not shared answers 404"
TOKEN=$YOUR_TOKEN refused 404 GET "/api/datasets/$DATASET"
send PUT "/api/datasets/$DATASET/shares/$YOUR_ID" '{"grant":"viewer"}'
same "$(call GET "/api/datasets/$DATASET/shares" | field '#')" 2
same "$(TOKEN=$YOUR_TOKEN call GET "/api/datasets/$DATASET" | field grant)" viewer
TOKEN=$YOUR_TOKEN refused 403 DELETE "/api/datasets/$DATASET"
call DELETE "/api/datasets/$DATASET/shares/$YOUR_ID"
TOKEN=$YOUR_TOKEN refused 404 GET "/api/datasets/$DATASET"
send POST "/api/datasets/$DATASET/shares" "{\"email\":\"$YOU@example.org\",\"grant\":\"viewer\"}"
call DELETE "/api/datasets/$DATASET/shares/$YOUR_ID"

chapter "Share it with a team, whose members have its grants"
TEAM=$(send POST /api/teams '{"name":"Haematology"}' | field id)
same "$(call GET /api/teams | field '#')" 1
send PATCH "/api/teams/$TEAM" '{"name":"Blood laboratory"}' > /dev/null
call PUT "/api/teams/$TEAM/members/$YOUR_ID"
call DELETE "/api/teams/$TEAM/members/$YOUR_ID"
send POST "/api/teams/$TEAM/members" "{\"email\":\"$YOU@example.org\"}"
same "$(call GET "/api/teams/$TEAM" | field members.#)" 2
send PUT "/api/datasets/$DATASET/shares/teams/$TEAM" '{"grant":"analyst"}'
same "$(TOKEN=$YOUR_TOKEN call GET "/api/datasets/$DATASET" | field grant)" analyst
TOKEN=$ADMIN_TOKEN call PUT "/api/models/$MODEL/promoters/teams/$TEAM"
TOKEN=$ADMIN_TOKEN call DELETE "/api/models/$MODEL/promoters/teams/$TEAM"
call DELETE "/api/datasets/$DATASET/shares/teams/$TEAM"
call DELETE "/api/teams/$TEAM"
TOKEN=$YOUR_TOKEN refused 404 GET "/api/datasets/$DATASET"

chapter "Transfer it; the previous owner still edits it"
TOKEN=$ADMIN_TOKEN send POST "/api/datasets/$DATASET/transfer" "{\"user_id\":\"$YOUR_ID\"}"
same "$(call GET "/api/datasets/$DATASET" | field grant)" editor
TOKEN=$ADMIN_TOKEN send POST "/api/datasets/$DATASET/transfer" "{\"user_id\":\"$MY_ID\"}"
call DELETE "/api/datasets/$DATASET/shares/$YOUR_ID"

chapter "Read the audit trail of the image and earlier states of the dataset, as an administrator"
TOKEN=$ADMIN_TOKEN
call GET "/api/audit/$IMAGE/trail" | python3 -c '
import json, sys
for entry in json.load(sys.stdin):
    print("  ", entry["position"], entry["at"], entry["sentence"], file=sys.stderr)'
call GET "/api/audit?object=$IMAGE&order=oldest" | python3 -c '
import json, sys
for item in json.load(sys.stdin):
    print("  ", item["at"], item["sentence"], file=sys.stderr)'
same "$(call GET "/api/audit/$DATASET/state?as_of=$((CHANGED_AT - 1))" | field description)" ""
same "$(call GET "/api/audit/$DATASET/state?as_of=$CHANGED_AT" | field description)" "May-Grünwald-Giemsa"
call GET "/api/audit/$DATASET/images?as_of=$CHANGED_AT" > /dev/null
call GET "/api/audit/$IMAGE/results" > /dev/null

chapter "Follow the events from any position"
call GET /api/events/schemas > /dev/null
same "$(call GET '/api/events/schemas/ChunkJudged?version=1' | field title)" ChunkJudged
AFTER=0
while PAGE=$(call GET "/api/events?after=$AFTER&limit=1000&sealed=true" 2> /dev/null) && [ "$(field events.# <<< "$PAGE")" -gt 0 ]; do
  AFTER=$(field next <<< "$PAGE")
done
say "GET /api/events, until the last position: $AFTER"
TOKEN=$MY_TOKEN refused 403 GET /api/events
call GET /api/events/heads > /dev/null
call GET "/api/events?after=$AFTER&wait=1" > /dev/null
say "GET /api/live"
LAST=$({ curl --silent --no-buffer --max-time 10 -H "Authorization: Bearer $TOKEN" -H "Last-Event-ID: $((AFTER - 1))" "$URL/api/live" || true; } |
  grep --max-count 1 '^id: ')
same "$LAST" "id: $AFTER"

chapter "Give programs keys: a personal one, and one of a service account"
KEY=$(TOKEN=$MY_TOKEN send POST /api/keys '{"name":"script","scopes":["images:read"]}')
TOKEN=$(field key <<< "$KEY") call GET "/api/images/$IMAGE" > /dev/null
TOKEN=$(field key <<< "$KEY") refused 403 GET /api/datasets
ROTATED=$(TOKEN=$MY_TOKEN send POST "/api/keys/$(field id <<< "$KEY")/rotate" '{"overlap_hours":0}')
TOKEN=$(field key <<< "$KEY") refused 401 GET "/api/images/$IMAGE"
TOKEN=$(field key <<< "$ROTATED") call GET "/api/images/$IMAGE" > /dev/null
same "$(TOKEN=$MY_TOKEN call GET /api/keys | field 0.status)" working
call DELETE "/api/keys/$(field id <<< "$KEY")"
SERVICE=$(send POST /api/service-accounts "{\"name\":\"scanner-$(random)\"}" | field id)
call GET /api/service-accounts > /dev/null
call GET "/api/service-accounts/$SERVICE" > /dev/null
send POST "/api/service-accounts/$SERVICE/keys" "{\"name\":\"uploads\",\"scopes\":[\"images:write\"],\"dataset_ids\":[\"$DATASET\"]}" > /dev/null
same "$(call GET "/api/service-accounts/$SERVICE/keys" | field 0.name)" uploads
call DELETE "/api/service-accounts/$SERVICE"

chapter "List the sessions of an account, and end some"
TOKEN=$MY_TOKEN
SESSION=$(call GET /api/sessions | field 0.id)
TOKEN=$YOUR_TOKEN refused 404 DELETE "/api/sessions/$SESSION"
sign_in "$ME@example.org" "$PASSWORD" > /dev/null
call DELETE "/api/sessions/$(call GET /api/sessions | field 0.id)"
sign_in "$ME@example.org" "$PASSWORD" > /dev/null
call DELETE /api/sessions
same "$(call GET /api/sessions | field 0.id)" "$SESSION"
TOKEN=$ADMIN_TOKEN
YOUR_SESSION=$(call GET "/api/users/users/$YOUR_ID/sessions" | field 0.id)
call DELETE "/api/users/users/$YOUR_ID/sessions/$YOUR_SESSION"
call DELETE "/api/users/users/$YOUR_ID/sessions"
TOKEN=$YOUR_TOKEN refused 401 GET /api/users/me

chapter "Refresh the tokens, and sign out"
TOKEN=''
REFRESHED=$(send POST /api/auth/refresh "{\"refresh_token\":\"$MY_REFRESH\"}")
TOKEN=$(field access_token <<< "$REFRESHED")
call GET /api/users/me > /dev/null
send POST /api/auth/logout "{\"refresh_token\":\"$(field refresh_token <<< "$REFRESHED")\"}"
refused 401 GET /api/users/me

chapter "Delete everything; the log keeps the events"
TOKEN=$ADMIN_TOKEN
call DELETE "/api/images/$IMAGE"
call DELETE "/api/datasets/$DATASET"
refused 404 GET "/api/images/${IMAGES[1]}"
call DELETE "/api/devices/$DEVICE"
call DELETE "/api/users/users/$YOUR_ID"
call DELETE "/api/users/users/$MY_ID"
chapter "Done"
