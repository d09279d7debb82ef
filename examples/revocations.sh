#!/usr/bin/env bash
# Follows revocations as a PEP does: prints the session of each connection that is to be cut, and goes on after a lost
# connection where it left off. Where the log does not have that place, or is another one since a restore
# (`OUT_OF_RANGE`), it lists the sessions that are revoked by now, and goes on from the present.
#
# usage: revocations.sh [ADDRESS]      wants grpcurl and python3
set -euo pipefail
address=${1:-127.0.0.1:7070}
error=$(mktemp)
trap 'rm -f "$error"' EXIT

# One message a line: `<through_sequence> <lineage> <session, or - for a checkpoint>`.
follow() {
    grpcurl -plaintext -d "{\"parent\": \"cluster\", \"types\": [\"AUDIT_TYPE_SESSION_REVOKED\"] $1}" \
        "$address" portcullis.v1.AuditService/WatchEvents 2>"$error" |
        python3 -u -c '
import json, sys
text = ""
for line in sys.stdin:
    text += line
    if line.rstrip("\n") == "}":
        event, text = json.loads(text), ""
        session = event.get("record", {}).get("session", {}).get("name", "-")
        print(event["throughSequence"], event["lineage"], session)
'
}

# Every session that is revoked and not ended. A PEP calls `RenewSessions` for its own sessions instead: that also tells
# which ones the server does not know, for example after a restore.
list_revoked() {
    local token="" page
    while true; do
        page=$(grpcurl -plaintext -d "{\"parent\": \"cluster\", \"state\": \"SESSION_STATE_ACTIVE\", \"page_size\": 1000,
            \"page_token\": \"$token\"}" "$address" portcullis.v1.AuditService/ListSessions) || return 1
        python3 -c '
import json, sys
for session in json.load(sys.stdin).get("sessions", []):
    if "revokeTime" in session:
        print("cut", session["name"])
' <<<"$page"
        token=$(python3 -c 'import json, sys; print(json.load(sys.stdin).get("nextPageToken", ""))' <<<"$page")
        [ -n "$token" ] || break
    done
}

# A sequence that the log has, and that is at most a second old: the size that the newest checkpoint states. Then the
# lineage of the log.
present() {
    grpcurl -plaintext "$address" portcullis.v1.AuditService/GetCheckpoint |
        python3 -c '
import json, sys
checkpoint = json.load(sys.stdin)
print(checkpoint["note"].split("\n")[1], checkpoint["lineage"])'
}

through="" lineage=""
while true; do
    while read -r sequence its_lineage session; do
        through=$sequence lineage=$its_lineage
        if [ "$session" != - ]; then
            echo "cut $session"
        fi
    done < <(follow "${through:+, \"after_sequence\": $through, \"lineage\": \"$lineage\"}")
    cat "$error" >&2
    # The present is asked for before the list is read, and followed from afterwards: no revocation lies between them.
    if grep -q 'Code: OutOfRange' "$error" && now=$(present) && list_revoked; then
        read -r through lineage <<<"$now"
    fi
    sleep 1
done
