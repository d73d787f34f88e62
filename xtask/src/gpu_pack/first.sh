#!/usr/bin/env bash
# The first minutes on a GPU: does it start, is it right, how fast is it. `cargo xtask gpu-pack`
# packs this script with the programs that it runs; the machine needs bash, NVIDIA's driver, NVRTC
# 13 and cuBLAS 13 (from the toolkit or from Python's packages), and no compiler.
#
#   tar xzf gpu.tar.gz && bash gpu/first.sh
#
# Each step is a process with a time limit. What fails is a line of $OUT/summary.txt, and the next
# step runs. END is the limit of all steps together, in seconds. With DRY_RUN=1, each step shows
# only that its program exists and knows its arguments.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/tree" || exit 1
export OUT=${OUT:-$here/out} END=${END:-570} DRY_RUN=${DRY_RUN:-}
mkdir -p "$OUT/logs"
: >"$OUT/summary.txt"

say() { printf '[%3ds] %s\n' "$SECONDS" "$*" | tee -a "$OUT/summary.txt"; }

# step NAME LIMIT COMMAND ..
step() {
  local name=$1 limit=$2 left=$((END - SECONDS)) log=$OUT/logs/$1.log code=0
  shift 2
  if ((left < 8)); then
    say "SKIP $name: no time is left"
    return 1
  fi
  timeout -k 5 $((limit < left ? limit : left)) "$@" >"$log" 2>&1 || code=$?
  if ((code == 0)); then
    say "PASS $name: $(grep . "$log" | tail -n 1 | cut -c1-160)"
  else
    say "FAIL($code) $name"
    tail -n 4 "$log" | cut -c1-240 | tee -a "$OUT/summary.txt"
  fi
  return $code
}

# Tests of a binary, each in a process: an error that the driver keeps, or a hang, ends only one.
tests() { # BINARY
  local test
  for test in $("$here/bin/$1" --list | sed -n 's/: test$//p'); do
    step "$1-${test//::/-}" 60 "$here/bin/$1" --exact "$test" --test-threads=1
  done
}

# xtask NAME LIMIT TASK ARGUMENTS ..
xtask() {
  local name=$1 limit=$2
  shift 2
  if [ -n "$DRY_RUN" ]; then set -- "$@" --help; fi # after arguments that it must know
  step "$name" "$limit" "$here/bin/xtask" "$@"
}

# tool NAME LIMIT PROGRAM ARGUMENTS ..: a program that the machine may lack.
tool() {
  local name=$1 limit=$2
  shift 2
  if [ -n "$DRY_RUN" ] || ! command -v "$1" >/dev/null; then
    say "SKIP $name: $1 is not run"
    return 0
  fi
  step "$name" "$limit" "$@"
}

# ---- where everything is ----
nvidia-smi --query-gpu=name,driver_version,mig.mode.current,compute_mode,clocks.sm,memory.used \
  --format=csv,noheader 2>&1 | tee -a "$OUT/summary.txt"
uname -rm | tee -a "$OUT/summary.txt"
folders=$(python3 "$here/libraries.py")
# Appended, since the driver may be found through what is set already.
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders:/usr/local/cuda/lib64"
say "libraries: $LD_LIBRARY_PATH"
# Golden files and scripts are looked for where the programs were built.
built=$(cat "$here/built")
if [ ! -e "$built" ]; then
  mkdir -p "$(dirname "$built")" && ln -s "$here/tree" "$built"
fi
export RECURRENT_KERNEL_CACHE=$OUT/kernels
if [ -z "$DRY_RUN" ]; then export RECURRENT_CUDA=real; fi

# ---- does it start? ----
step start 60 env LD_DEBUG=libs LD_DEBUG_OUTPUT="$OUT/logs/opened" \
  "$here/bin/cuda_missing" --test-threads=1
grep -hoE 'calling init: [^ ]*(libcuda|libnvrtc|libcublas)[^ ]*' "$OUT"/logs/opened* | sort -u |
  tee -a "$OUT/summary.txt"

# ---- is it right? ----
conformance() { # GROUP
  local code=0 log="$OUT/logs/conformance-${1// /-}"
  timeout -k 5 140 "$here/bin/xtask" conformance --device cuda --filter "$1/" \
    >"$log.log" 2>&1 || code=$?
  echo "$code" >"$log.code"
}
export here
export -f conformance
if [ -z "$DRY_RUN" ]; then
  timeout -k 5 160 xargs -d '\n' -P 8 -I{} bash -c 'conformance "$1"' _ {} <"$here/groups"
  while read -r group; do
    log=$OUT/logs/conformance-${group// /-}
    code=$(cat "$log.code" 2>/dev/null || echo 124)
    if ((code == 0)); then result=PASS; else result="FAIL($code)"; fi
    say "$result conformance $group: $(grep . "$log.log" | tail -n 1 | cut -c1-150)"
  done <"$here/groups"
else
  xtask conformance 60 conformance --device cuda --filter "$(head -n 1 "$here/groups")/"
fi
if [ -z "$DRY_RUN" ]; then
  tests cuda
else
  step cuda 60 "$here/bin/cuda" bounds:: --test-threads=1
fi
xtask golden 60 golden tests/golden/fixtures tests/golden/surface --device cuda

# ---- how fast is it? ----
for precision in exact tf32; do
  xtask "bench-$precision" 70 bench --device cuda --precision "$precision" --threads 8 \
    --workload W3_lstm512,W4_gru512,W6_longseq,W7_ragged --compare torch --json \
    --save "$OUT/bench.jsonl"
done
tool cudnn 60 python3 "$here/cudnn.py"

# ---- what do NVIDIA's checkers find? ----
small=backend::every_override_agrees_with_its_default_body
for checker in memcheck racecheck initcheck; do
  tool "$checker" 60 compute-sanitizer --tool "$checker" --error-exitcode 9 \
    "$here/bin/cuda" --exact "$small" --test-threads=1
done
tool ncu 60 ncu --clock-control none --set full -k regex:lstm_persistent -c 1 -f \
  -o "$OUT/persistent" "$here/bin/cuda" --exact "$small" --test-threads=1

tar -C "$OUT" -czf "$OUT/logs.tgz" logs
count() { grep -c "\] $1" "$OUT/summary.txt"; }
say "$(count 'PASS ') passed, $(count FAIL) failed"
! grep -q '\] FAIL' "$OUT/summary.txt"
