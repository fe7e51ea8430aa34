# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# Two vTPMs in a PV guest, attached, detached, reloaded, rebooted, crashed, destroyed: each goes at once and leaves nothing; PCRs go with the boot only.
# limit: 900 s

# shellcheck source=tests/xen/dom0/devices.sh
. /share/harness/dom0/devices.sh

devices_begin pv
devices_driver
devices_xl
reboots_by_xl
reboots_inside
crashes
again "after the crash"
shuts_down
again "after the shutdown"
is_destroyed
devices_end
