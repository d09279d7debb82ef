#!/usr/bin/env bash
# Follows revocations as a PEP does: prints the session of each connection that is to be cut, and goes on after a lost
# connection where it left off.
#
# usage: revocations.sh [ADDRESS]      wants grpcurl and python3
set -euo pipefail
address=${1:-127.0.0.1:7070}

# One message a line: `<through_sequence> <session, or - for a checkpoint>`.
follow() {
    grpcurl -plaintext -d "{\"parent\": \"cluster\", \"types\": [\"AUDIT_TYPE_SESSION_REVOKED\"] $1}" \
        "$address" portcullis.v1.AuditService/WatchEvents |
        python3 -u -c '
import json, sys
text = ""
for line in sys.stdin:
    text += line
    if line.rstrip("\n") == "}":
        event, text = json.loads(text), ""
        print(event["throughSequence"], event.get("record", {}).get("session", {}).get("name", "-"))
'
}

through=""
while true; do
    while read -r sequence session; do
        through=$sequence
        if [ "$session" != - ]; then
            echo "cut $session"
        fi
    done < <(follow "${through:+, \"after_sequence\": $through}")
    sleep 1
done
