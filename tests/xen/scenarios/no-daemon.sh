# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# No xl-vtpmd running: xl create fails with the message our documents quote, and leaves nothing running.
# needs: nothing
# limit: 240 s

step "xl create with a vtpm line and nobody serving it"
guest_config nodaemon 'backend=0,uuid=5d3f5bb8-35a7-4c3c-8f5b-6a0c8dcb5e01'
status=0
guest_create nodaemon || status=$?
isnt "xl create fails" "$status" 0
like "xl says which device had no backend" "$xl_output" \
    'unable to add device with path /local/domain/0/backend/vtpm/[0-9]+/0'
like "and names the vtpm devices" "$xl_output" 'unable to add vtpm devices'
at_most "within libxl's two timeouts" "$xl_seconds" 30
succeeds "no half-made guest is left" guest_gone nodaemon
cp "$logs/log" "$logs/xl-message"
