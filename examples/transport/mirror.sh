#!/bin/sh
# Mirrors an update repository into a folder with rsync, then lets the updater check it. For a systemd timer:
# see edge-vision-mirror.timer. The updater has repository_url: file://$TARGET and auto: off.
#
#   mirror.sh SOURCE TARGET [UPDATER]
#
# SOURCE: as for rsync, for example updates@operator:/srv/updates. UPDATER: the node, /updater by default.
set -eu

source=$1
target=$2
updater=${3:-/updater}

mkdir -p "$target/metadata"
# timestamp.json makes the other files visible, so it comes last.
rsync -rt --timeout=60 --bwlimit=4000 --exclude=/metadata/timestamp.json --exclude=/.lock "$source/" "$target/"
rsync -rt --timeout=60 "$source/metadata/timestamp.json" "$target/metadata/"
timeout 30 ros2 service call "$updater/check" std_srvs/srv/Trigger
