# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# What a vtpm line adds to xl create and to xl destroy: domains with and without one in turns, medians told; each is measured, none is judged.
# slow: a measurement, not a test
# limit: 900 s

uuid=7e5c0c3a-2f4b-4c8e-9d1f-3a6b8d0e2c41
rounds=9

daemon_reset
daemon_start
guest_config without ''
guest_config with "backend=0,uuid=$uuid"
# The instance and its TPM are made by the first, which is not counted.
for kind in with without; do
    guest_create "$kind"
    guest_destroy "$kind"
done
for ((round = 0; round < rounds; round++)); do
    for kind in with without; do
        guest_create "$kind"
        printf '%s\n' "$xl_seconds" >>"$logs/create-$kind"
        guest_destroy "$kind"
        printf '%s\n' "$xl_seconds" >>"$logs/destroy-$kind"
    done
done
median() { sort -n "$1" | sed -n "$((rounds / 2 + 1))p"; }
for what in create destroy; do
    is "xl $what, median of $rounds: $(median "$logs/$what-with") s with a vtpm line, $(median \
        "$logs/$what-without") s without" "$(wc -l <"$logs/$what-with")" "$rounds"
done
