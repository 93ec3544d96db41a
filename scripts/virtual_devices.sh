#!/usr/bin/env bash
# Run a command beside a sound server of its own, with a virtual microphone and loudspeaker:
#
#     scripts/virtual_devices.sh [--rate HZ] COMMAND...
#
#     vmic      the default microphone; whatever is played into the sink vmicfeed is heard by it
#     vspk      the default loudspeaker; what it plays can be recorded from vspk.monitor
#     vspk2     a second loudspeaker, vmic2 a second microphone (feed: vmicfeed2)
#
# Needs pulseaudio, pulseaudio-utils, libasound2-plugins and libportaudio2; no root, no sound card.
# The daemon ends with the command, whichever way that ends. The folder VIRTUAL_DEVICES has its
# process id, its control socket (cli) and its log.
set -euo pipefail

rate=48000
if [[ ${1:-} == --rate ]]; then rate=$2; shift 2; fi
[[ $# -gt 0 ]] || { echo "usage: $0 [--rate HZ] COMMAND..." >&2; exit 2; }
for tool in pulseaudio pactl setsid; do
  command -v "$tool" >/dev/null || {
    echo "$0: $tool not found; apt install pulseaudio pulseaudio-utils libasound2-plugins" >&2; exit 1; }
done

dir=$(mktemp -d)
mkdir -p "$dir/run" "$dir/home"
chmod 700 "$dir/run" "$dir/home"
# norewinds: without it a null sink sleeps for 2 s at a time and loses what is played first
sink() { echo "load-module module-null-sink sink_name=$1 rate=$rate channels=$2 format=s16le norewinds=1"; }
cat >"$dir/daemon.pa" <<PA
load-module module-native-protocol-unix auth-anonymous=1 socket=$dir/run/native
load-module module-cli-protocol-unix socket=$dir/run/cli
$(sink vspk 2)
$(sink vspk2 2)
$(sink vmicfeed 1)
$(sink vmicfeed2 1)
load-module module-remap-source source_name=vmic master=vmicfeed.monitor
load-module module-remap-source source_name=vmic2 master=vmicfeed2.monitor
set-default-sink vspk
set-default-source vmic
PA
pcm() { echo "pcm.$1 { type pulse device $1 hint { show on description \"$1\" } }"; }
cat >"$dir/asound.conf" <<ALSA
$(pcm vspk)
$(pcm vspk2)
$(pcm vmic)
$(pcm vmic2)
pcm.!default { type pulse hint { show on description "default" } }
ctl.!default { type pulse }
ALSA
export VIRTUAL_DEVICES=$dir/run XDG_RUNTIME_DIR=$dir/run PULSE_RUNTIME_PATH=$dir/run PULSE_STATE_PATH=$dir/home
export PULSE_COOKIE=$dir/home/cookie PULSE_SERVER=unix:$dir/run/native
export ALSA_CONFIG_PATH=/usr/share/alsa/alsa.conf:$dir/asound.conf

HOME=$dir/home setsid pulseaudio -n -F "$dir/daemon.pa" --daemonize=no --exit-idle-time=-1 \
  --use-pid-file=no --realtime=no --high-priority=no --log-target="file:$dir/run/daemon.log" \
  </dev/null >"$dir/out.log" 2>&1 &
daemon=$!
echo "$daemon" >"$dir/run/pid"
trap 'kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for _ in $(seq 200); do
  pactl list short sources 2>/dev/null | grep -q vmic2 && break
  kill -0 "$daemon" 2>/dev/null || { echo "$0: the sound server did not start" >&2; cat "$dir/out.log" >&2; exit 1; }
  sleep 0.05
done
"$@"
